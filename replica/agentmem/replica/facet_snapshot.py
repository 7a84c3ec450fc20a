"""The facets of all namespaces at one revision, on disk: a restart reads them instead of every record.

One file. It begins with a SHA-256 of all behind it; then come pieces, each behind its length as uint64: a
header in JSON, and for each namespace what ``_write_facets`` writes. The header names the place in the log,
with its chain hash, so what is read is what that store had there; what came later is applied from its log.

It is written when nothing was to do for a while, and at the end, and has live memories alone. It is deleted
before the first change behind it is applied: nothing that is erased stays in it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from agentmem.core.data_directory import sync
from agentmem.core.layout import NamespaceState
from agentmem.core.log import Position, decode_entry
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.turns import give_turn
from agentmem.replica.facets import FacetParts, Facets
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array
from agentmem.replica.value_postings import ValueKey, key_of, value_of

SNAPSHOT_FORMAT = 1
SNAPSHOT_FILE = "facets.snapshot"
# Written in one step, in which other threads wait.
CHUNK_VALUES = 1000
# Without a change for so long it is written; of the time, this share at most goes into it.
IDLE_S = 5.0
MAX_TIME_SHARE = 0.05
# Of fewer memories the records are read as soon.
MIN_MEMORIES = 1000
_DIGEST_BYTES = 32
_LENGTH = np.dtype("<u8")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FacetSnapshot:
    """The facets by the name of their namespace, as of a revision; all their memories are live."""

    revision: int
    epoch: int
    facets: dict[str, Facets]

    @property
    def live(self) -> OrdinalArray:
        """The ordinals of all memories, uint64 [n], ascending."""
        return ordinal_array(OrdinalSet().union(*(each.all_ordinals() for each in self.facets.values())))


def position_at(transaction: ReadTransaction, revision: int) -> Position | None:
    """The place in the log at a revision; None when the entry there is no longer kept."""
    now = transaction.position
    if revision == now.revision:
        return now
    value = transaction.log_value(revision)
    if value is None or revision > now.revision:
        return None
    entry, chain_hash = decode_entry(value, revision)
    return Position(now.cluster_id, entry.epoch, revision, chain_hash)


def write_snapshot(
    path: Path, position: Position, namespaces: Mapping[str, tuple[NamespaceState, FacetParts]]
) -> None:
    """Writes the facets of namespaces as they are at a position. Raises OSError, and leaves no file then."""
    temporary = path.with_suffix(".writing")
    header = {"format": SNAPSHOT_FORMAT, "position": _named(position)}
    header["namespaces"] = {name: _identity(state) for name, (state, _) in namespaces.items()}
    try:
        with temporary.open("wb") as file:
            file.write(bytes(_DIGEST_BYTES))
            digest = hashlib.sha256()
            pieces = (_facet_pieces(parts) for _, parts in namespaces.values())
            for piece in itertools.chain([_json(header)], *pieces):
                for data in (np.array(len(piece), dtype=_LENGTH).tobytes(), piece):
                    digest.update(data)
                    file.write(data)
            file.seek(0)
            file.write(digest.digest())
        sync(temporary)
        temporary.rename(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read_snapshot(
    path: Path, transaction: ReadTransaction, states: Mapping[str, NamespaceState]
) -> FacetSnapshot | None:
    """What is in the file, if it is of this store and the store's log goes on from there; else None.

    Args:
        states: of the namespaces of the store.
    """
    try:
        with path.open("rb") as file:
            expected = file.read(_DIGEST_BYTES)
            if hashlib.file_digest(file, "sha256").digest() != expected:
                raise ValueError("it fails its checksum")
            file.seek(_DIGEST_BYTES)
            pieces = _pieces(file)
            header = json.loads(next(pieces))
            if header["format"] != SNAPSHOT_FORMAT:
                raise ValueError(f"it has format {header['format']}")
            revision = int(header["position"]["revision"])
            position = position_at(transaction, revision)
            if position is None or _named(position) != header["position"]:
                raise ValueError("it is of another place than any in the log")
            for name, identity in header["namespaces"].items():
                if name not in states or _identity(states[name]) != identity:
                    raise ValueError(f"the namespace {name!r} has other embeddings now")
            facets = {name: Facets.of_parts(_read_facets(pieces)) for name in header["namespaces"]}
            return FacetSnapshot(revision, position.epoch, facets)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, StopIteration) as error:
        _logger.warning("the facets in %s are built again from the store: %s", path, error)
        return None


def _named(position: Position) -> dict[str, Any]:
    return {
        "cluster_id": position.cluster_id.hex(),
        "epoch": position.epoch,
        "revision": position.revision,
        "chain_hash": position.chain_hash.hex(),
    }


def _identity(state: NamespaceState) -> list[Any]:
    """What the facets, which name the model, depend on."""
    return [state.number, state.dimension, state.model, state.space, state.coming_space]


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _facet_pieces(parts: FacetParts) -> Iterator[bytes]:
    yield _json({"columns": [*parts.columns], "postings": {f: len(p) for f, p in parts.postings.items()}})
    yield _json({"sessions": len(parts.sessions), "any_expires": parts.any_expires})
    yield parts.ordinals.tobytes()
    yield from (column.tobytes() for column in parts.columns.values())
    yield parts.session_codes.tobytes()
    yield from (_json(chunk) for chunk in _chunks(parts.sessions))
    for posting in parts.postings.values():
        for chunk in _chunks([*posting.items()]):
            sets = [each.serialize() if isinstance(each, OrdinalSet) else b"" for _, each in chunk]
            alone = [0 if isinstance(each, OrdinalSet) else each for _, each in chunk]
            yield _json([value_of(key) for key, _ in chunk])
            yield np.array([[len(each) for each in sets], alone], dtype=_LENGTH).tobytes()
            yield b"".join(sets)


def _chunks(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), CHUNK_VALUES):
        yield values[start : start + CHUNK_VALUES]
        give_turn()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while length := file.read(_LENGTH.itemsize):
        yield file.read(int(np.frombuffer(length, dtype=_LENGTH)[0]))


def _read_facets(pieces: Iterator[bytes]) -> FacetParts:
    shape = json.loads(next(pieces)) | json.loads(next(pieces))
    ordinals: npt.NDArray[np.uint64] = np.frombuffer(next(pieces), dtype=np.uint64)
    columns = {name: np.frombuffer(next(pieces), dtype=Facets.dtype_of(name)) for name in shape["columns"]}
    codes: npt.NDArray[np.int64] = np.frombuffer(next(pieces), dtype=np.int64)
    sessions: list[str] = []
    while len(sessions) < shape["sessions"]:
        sessions += json.loads(next(pieces))
    postings: dict[str, dict[ValueKey, int | OrdinalSet]] = {}
    for field, count in shape["postings"].items():
        by_value = postings[field] = {}
        while len(by_value) < count:
            values = json.loads(next(pieces))
            lengths, alone = np.frombuffer(next(pieces), dtype=_LENGTH).reshape(2, -1).tolist()
            sets, start = next(pieces), 0
            for value, length, ordinal in zip(values, lengths, alone, strict=True):
                end = start + length
                found = OrdinalSet.deserialize(sets[start:end]) if length else ordinal
                by_value[key_of(value)] = found
                start = end
    return FacetParts(ordinals, columns, codes, sessions, shape["any_expires"], postings)


class SnapshotFile:
    """When the snapshot is written, and when it goes. For the indexer's thread alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # When it is to be written, by the monotonic clock; None while it is there, or nothing has come yet.
        self._due_at_s: float | None = None
        self._not_before_s = 0.0
        self._is_there = path.exists()

    def read(
        self, transaction: ReadTransaction, states: Mapping[str, NamespaceState]
    ) -> FacetSnapshot | None:
        """As ``read_snapshot``; a file that cannot be used is deleted."""
        found = read_snapshot(self._path, transaction, states)
        if found is None:
            self.forget()
        return found

    def forget(self) -> None:
        """Deletes the file, as a change is about to be applied that it knows nothing of."""
        if self._is_there:
            self._path.unlink(missing_ok=True)
            sync(self._path.parent)
            self._is_there = False
        self._due_at_s = max(time.monotonic() + IDLE_S, self._not_before_s)

    def wait_s(self) -> float | None:
        """How long until it is to be written, if nothing changes; None for never."""
        return None if self._due_at_s is None else max(0.0, self._due_at_s - time.monotonic())

    def write(
        self,
        position: Position | None,
        namespaces: Mapping[str, tuple[NamespaceState, Callable[[], FacetParts]]] | None,
    ) -> None:
        """Writes the facets of namespaces as of a position. Raises OSError.

        Args:
            position: None when it cannot be named: then nothing is written.
            namespaces: None when it would not pay.
        """
        began_s = time.monotonic()
        self._due_at_s = None
        if (
            namespaces is None
            or position is None
            or any(state.coming_space for state, _ in namespaces.values())
        ):
            return
        write_snapshot(
            self._path, position, {name: (state, parts()) for name, (state, parts) in namespaces.items()}
        )
        self._is_there = True
        ended_s = time.monotonic()
        self._not_before_s = ended_s + (ended_s - began_s) / MAX_TIME_SHARE
