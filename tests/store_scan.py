"""A full scan of a store: what has to be in it, given what else is, and what two stores have in common."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from agentmem.core.layout import (
    COUNTERS,
    DATABASES,
    KEY,
    VECTORS,
    IdState,
    NamespaceState,
    decode_id_state,
    expiry_key,
    hash_key,
    superseded_key,
    unseal,
)
from agentmem.core.log import EMPTY_CHAIN_HASH, LOG_HEADER_BYTES, Operation, decode_entry, next_chain_hash
from agentmem.core.records import (
    Record,
    decode_record,
    decode_vector,
    expand_record,
    stored_checksum,
)
from agentmem.core.store import Store
from agentmem.v1 import memory_pb2, storage_pb2

Rows = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Scan:
    """All rows of a store, and what they say."""

    rows: dict[bytes, Rows]
    records: dict[int, Record]
    # The ordinals of each memory that have a record, ascending.
    memories: dict[tuple[str, str], list[int]]
    ids: dict[tuple[str, str], IdState]
    spaces: dict[str, NamespaceState]
    entries: dict[int, storage_pb2.LogEntry]


def scan(store: Store) -> Scan:
    with store._environment.read(lambda each: each) as transaction:
        rows = {name: dict(transaction.scan(name)) for name in DATABASES}
    with store.read() as snapshot:
        spaces = dict(snapshot.namespaces())
        for name, space in spaces.items():
            assert snapshot.namespace_name(space.number) == name
        # Raw from here on: in one form on every node, however a store compresses.
        for key, value in rows[b"docs"].items():
            rows[b"docs"][key] = expand_record(value, KEY.unpack(key)[0], snapshot.dictionary)
    records = {KEY.unpack(key)[0]: decode_record(value, 0) for key, value in rows[b"docs"].items()}
    memories: dict[tuple[str, str], list[int]] = defaultdict(list)
    for ordinal, record in records.items():
        memories[record.memory.namespace, record.memory.id].append(ordinal)
    ids = {}
    for key, value in rows[b"ids"].items():
        namespace, _, memory_id = key.decode().partition("\x00")
        ids[namespace, memory_id] = decode_id_state(value, memory_id)
    entries = {
        KEY.unpack(key)[0]: decode_entry(value, KEY.unpack(key)[0])[0] for key, value in rows[b"log"].items()
    }
    return Scan(rows, records, dict(memories), ids, spaces, entries)


def check_scan(found: Scan, *, is_level: bool = True) -> None:
    """Asserts that the rows agree with each other.

    Args:
        is_level: False for a replica that is behind: versions that the writer has removed since may leave
            gaps in it until the entry that says so.
    """
    _check_ids(found, is_level=is_level)
    _check_lists(found)
    _check_counts(found)
    _check_log(found)
    _check_requests(found)
    if is_level:
        _check_operations(found)


def _check_ids(found: Scan, *, is_level: bool) -> None:
    assert set(found.ids) <= set(found.memories)
    if is_level:
        assert set(found.ids) == set(found.memories)
    for place, ordinals in found.memories.items():
        if place not in found.ids:
            continue
        chain = [found.records[ordinal] for ordinal in ordinals]
        newest = chain[-1]
        assert found.ids[place] == IdState(ordinals[-1], newest.memory.version, newest.is_tombstone), place
        for ordinal, before, after in zip(ordinals, chain, chain[1:], strict=False):
            assert before.memory.version < after.memory.version, place
            assert before.revision <= after.revision, place
            assert _us(before.memory) <= _us(after.memory), place
            if is_level:
                assert after.previous_ordinal == ordinal, place
        assert chain[0].previous_ordinal not in found.records


def _check_lists(found: Scan) -> None:
    """hashes and expiry have exactly the live versions, superseded exactly the others."""
    hashes, expiry, superseded = set(), set(), set()
    for (namespace, _), ordinals in found.memories.items():
        number = found.spaces[namespace].number
        for place, ordinal in enumerate(ordinals):
            record = found.records[ordinal]
            memory = record.memory
            if record.is_tombstone:
                superseded.add(superseded_key(number, _us(memory), ordinal))
            elif place + 1 < len(ordinals):
                successor = found.records[ordinals[place + 1]].memory
                superseded.add(superseded_key(number, _us(successor), ordinal))
            else:
                owned = f"{memory.user_id}\x00{memory.agent_id}\x00{memory.content}".encode()
                digest = hashlib.blake2b(owned, digest_size=16).digest()
                hashes.add(hash_key(number, digest, ordinal))
                if memory.HasField("expire_time"):
                    expiry.add(expiry_key(memory.expire_time.ToMicroseconds(), ordinal))
    assert set(found.rows[b"hashes"]) == hashes
    assert set(found.rows[b"expiry"]) == expiry
    assert set(found.rows[b"superseded"]) == superseded


def _check_counts(found: Scan) -> None:
    vectors, coming, coming_vectors = set(), set(), set()
    for database in VECTORS:
        for key, value in found.rows[database].items():
            ordinal = KEY.unpack(key)[0]
            memory = found.records[ordinal].memory
            space = found.spaces[memory.namespace]
            dimension = len(decode_vector(value, ordinal))
            if database == space.vectors:
                # Versions that are older than the embeddings tell of those before.
                assert space.space or memory.embedding_model == space.model
                assert dimension == space.dimension or (space.space and not dimension)
                if dimension:
                    vectors.add(ordinal)
            elif space.is_filling:
                assert dimension in (0, space.coming_dimension)
                coming.add(ordinal)
                if dimension:
                    coming_vectors.add(ordinal)
            else:
                assert space.is_clearing
    for name, space in found.spaces.items():
        live = [
            state.ordinal
            for (namespace, _), state in found.ids.items()
            if namespace == name and not state.deleted
        ]
        versions = {ordinal for ordinal, record in found.records.items() if record.memory.namespace == name}
        assert space.live_memories == len(live)
        assert space.live_vectors == len(vectors & set(live))
        assert space.versions == len(versions)
        assert space.coming_versions == len(coming & versions)
        assert space.coming_vectors == len(coming_vectors & set(live))
    numbers = sorted(space.number for space in found.spaces.values())
    assert numbers == list(range(1, len(numbers) + 1))


def _check_log(found: Scan) -> None:
    """From its first to its last entry without a gap, chained, up to the position of the store."""
    log = {KEY.unpack(key)[0]: value for key, value in found.rows[b"log"].items()}
    _, log_bytes = COUNTERS.unpack(unseal(found.rows[b"meta"][b"counters"], "counters"))
    assert log_bytes == sum(len(value) for value in log.values())
    revisions = sorted(log)
    if not revisions:
        return
    assert revisions == list(range(revisions[0], revisions[-1] + 1))
    chain_hash, time_us = EMPTY_CHAIN_HASH, 0
    for revision in revisions:
        entry, stated = decode_entry(log[revision], revision)
        assert entry.revision == revision
        if revision > revisions[0] or revision == 1:
            assert stated == next_chain_hash(chain_hash, log[revision][LOG_HEADER_BYTES:])
        assert entry.time_us >= time_us
        chain_hash, time_us = stated, entry.time_us
    assert unseal(found.rows[b"meta"][b"position"], "position").endswith(chain_hash)


def _check_requests(found: Scan) -> None:
    """A kept answer is in the list of requests under the entry that it came with."""
    listed = {KEY.unpack(key)[0]: unseal(value, "") for key, value in found.rows[b"request_log"].items()}
    for key, value in found.rows[b"requests"].items():
        outcome = storage_pb2.RequestOutcome.FromString(unseal(value, ""))
        assert outcome.key == key == listed[outcome.revision]
        if outcome.revision in found.entries:
            assert found.entries[outcome.revision].request == outcome


def _check_operations(found: Scan) -> None:
    """What an entry wrote is there with its checksums, or a later operation has removed it."""
    removed: set[int] = set()
    for revision in sorted(found.entries, reverse=True):
        for operation in reversed(found.entries[revision].operations):
            if operation.kind == Operation.KIND_CLEAR:
                continue
            if operation.kind in (Operation.KIND_PRUNE, Operation.KIND_PURGE):
                assert list(operation.removed_ordinals) == sorted(operation.removed_ordinals, reverse=True)
                removed.update(operation.removed_ordinals)
                continue
            key = KEY.pack(operation.ordinal)
            assert (operation.ordinal in removed) == (key not in found.rows[b"docs"])
            if operation.ordinal in removed:
                continue
            if operation.kind != Operation.KIND_EMBED:
                assert found.records[operation.ordinal].revision == revision
                assert stored_checksum(found.rows[b"docs"][key]) == operation.record_crc32c
            space = found.spaces[found.records[operation.ordinal].memory.namespace]
            named = []
            if operation.coming_space:
                named.append((operation.coming_space, operation.coming_vector_crc32c))
            if operation.kind != Operation.KIND_EMBED:
                named.append((operation.space, operation.vector_crc32c))
            for number, checksum in named:
                stored = space.database_of(number)
                if stored is not None and (checksum or number == space.space == operation.space):
                    assert stored_checksum(found.rows[stored].get(key, b"")) == checksum
    assert removed.isdisjoint(found.records)


def check_level(copy: Scan, original: Scan) -> None:
    """Asserts that a replica has what its writer has. Each trims its own log."""
    for name in DATABASES:
        ours, theirs = copy.rows[name], original.rows[name]
        if name == b"log":
            common = set(ours) & set(theirs)
            assert {key: ours[key] for key in common} == {key: theirs[key] for key in common}
        elif name == b"meta":
            assert ours.keys() == theirs.keys()
            assert ours[b"cluster_id"] == theirs[b"cluster_id"]
            assert ours[b"position"] == theirs[b"position"]
            (ordinal, _), (expected, _) = (
                COUNTERS.unpack(unseal(rows[b"counters"], "counters")) for rows in (ours, theirs)
            )
            assert ordinal == expected
        elif name != b"dictionaries":
            assert ours == theirs, name


def live_memories(found: Scan) -> dict[tuple[str, str], tuple[memory_pb2.Memory, bytes | None]]:
    """The undeleted memories by namespace and id, with their vectors as float32."""
    live = {}
    for place, state in found.ids.items():
        if not state.deleted:
            vector = found.rows[found.spaces[place[0]].vectors].get(KEY.pack(state.ordinal))
            given = None if not vector else decode_vector(vector, 0).astype("<f4").tobytes() or None
            live[place] = found.records[state.ordinal].memory, given
    return live


def _us(memory: memory_pb2.Memory) -> int:
    return memory.update_time.ToMicroseconds()
