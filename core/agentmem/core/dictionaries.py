"""The compression dictionaries of a store: one for each namespace where one pays.

A dictionary is trained on memories of its namespace, and holds pieces of them word for word. So the store
remembers which they were. When one of them is removed, the dictionary retires: nothing new is compressed with
it, what was is written again, and then it is deleted. Dictionaries belong to one store and are not
replicated; records name the checksum of their uncompressed content.

The value of a dictionary, sealed:

    0        4         5        9
    | number | retired | count  | ordinals of the samples ... | zstd dictionary ...
    | u32    | u8      | u32    | u64 each, ascending         |
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from agentmem.core.compression import TRAINING_SAMPLES, CompressionError, Dictionary
from agentmem.core.environment import Transaction
from agentmem.core.errors import DataLoss
from agentmem.core.layout import decode_number_key, number_prefix, seal, unseal
from agentmem.core.measurements import Lookups

# Each takes about half a megabyte when it is in use.
MAX_CACHED_DICTIONARIES = 64

_HEADER = struct.Struct("<IBI")


@dataclass(frozen=True, slots=True)
class StoredDictionary:
    """A dictionary as it is stored.

    Attributes:
        number: of its namespace.
        is_retired: new records must not use it.
        samples: the ordinals that it was trained on, ascending.
    """

    number: int
    is_retired: bool
    samples: Sequence[int]
    data: bytes


def encode_dictionary(stored: StoredDictionary) -> bytes:
    header = _HEADER.pack(stored.number, stored.is_retired, len(stored.samples))
    return seal(header + struct.pack(f"<{len(stored.samples)}Q", *stored.samples) + stored.data)


def decode_dictionary(value: bytes, dictionary_id: int) -> StoredDictionary:
    """Raises DataLoss when the value fails its checksum."""
    rest = unseal(value, f"dictionary {dictionary_id}")
    number, is_retired, count = _HEADER.unpack_from(rest)
    samples = struct.unpack_from(f"<{count}Q", rest, _HEADER.size)
    return StoredDictionary(number, bool(is_retired), samples, rest[_HEADER.size + 8 * count :])


class Dictionaries:
    """What a process knows of its store's dictionaries. Any thread may use it.

    It may lag behind a commit, and be ahead of one that failed: then less is compressed for a while.

    Attributes:
        lookups: of dictionaries that are ready for use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: OrderedDict[int, Dictionary] = OrderedDict()
        self.lookups = Lookups()
        # By namespace number: the dictionary for new records.
        self._newest: dict[int, int] = {}
        # By namespace number: every dictionary that the store has, or is about to have.
        self._ids: dict[int, set[int]] = {}
        self._retired: set[int] = set()
        self._last_id = 0
        # By namespace number: the size at which training is tried, and which have reached it.
        self._train_at: dict[int, int] = {}
        self._untrained: set[int] = set()

    def load(self, transaction: Transaction) -> None:
        """Reads what the store has. Raises DataLoss when that is damaged."""
        for key, value in transaction.scan(b"dictionaries"):
            dictionary_id = decode_number_key(key)
            self.take_up(dictionary_id, decode_dictionary(value, dictionary_id))

    def take_up(self, dictionary_id: int, stored: StoredDictionary) -> None:
        """A dictionary is in the store, where a removal of a sample may have retired it since."""
        with self._lock:
            self._last_id = max(self._last_id, dictionary_id)
            self._ids.setdefault(stored.number, set()).add(dictionary_id)
            if stored.is_retired:
                self._retired.add(dictionary_id)
            elif dictionary_id not in self._retired:
                self._newest[stored.number] = dictionary_id
                self._untrained.discard(stored.number)

    def find(self, transaction: Transaction, dictionary_id: int) -> Dictionary | None:
        """The dictionary that a record names; None when the store does not have it."""
        with self._lock:
            known = self._ready.get(dictionary_id)
            self.lookups.count(known is not None)
            if known is not None:
                self._ready.move_to_end(dictionary_id)
                return known
        value = transaction.get(b"dictionaries", number_prefix(dictionary_id))
        if value is None:
            return None
        try:
            dictionary = Dictionary(dictionary_id, decode_dictionary(value, dictionary_id).data)
        except CompressionError as error:
            raise DataLoss("CORRUPT_VALUE", f"dictionary {dictionary_id} is damaged: {error}") from error
        with self._lock:
            self._ready[dictionary_id] = dictionary
            if len(self._ready) > MAX_CACHED_DICTIONARIES:
                self._ready.popitem(last=False)
        return dictionary

    def newest(self, transaction: Transaction, number: int) -> Dictionary | None:
        """The dictionary for new records of a namespace."""
        dictionary_id = self.newest_id(number)
        return None if dictionary_id is None else self.find(transaction, dictionary_id)

    def newest_id(self, number: int) -> int | None:
        """The id of that, if there is one."""
        return self._newest.get(number)

    def retire_trained_on(self, transaction: Transaction, number: int, ordinals: Sequence[int]) -> None:
        """Retires the dictionaries of a namespace, in a write, of which one of the versions is a sample.

        What the store says counts: a write that runs again finds them as they were.
        """
        with self._lock:
            known = sorted(self._ids.get(number, ()))
        for dictionary_id in known:
            value = transaction.get(b"dictionaries", number_prefix(dictionary_id))
            if value is None:
                continue
            stored = decode_dictionary(value, dictionary_id)
            if not stored.is_retired and any(_has(stored.samples, ordinal) for ordinal in ordinals):
                self.retire(transaction, dictionary_id)

    def retire(self, transaction: Transaction, dictionary_id: int) -> None:
        """Retires a dictionary in a write, if the store has it and it is not retired yet."""
        key = number_prefix(dictionary_id)
        value = transaction.get(b"dictionaries", key)
        if value is None:
            return
        stored = decode_dictionary(value, dictionary_id)
        if not stored.is_retired:
            retired = StoredDictionary(stored.number, True, stored.samples, stored.data)
            transaction.put(b"dictionaries", key, encode_dictionary(retired))
        with self._lock:
            if self._newest.get(stored.number) == dictionary_id:
                del self._newest[stored.number]
            self._retired.add(dictionary_id)

    def consider(self, number: int, live_memories: int) -> None:
        """A namespace has grown: it may be worth a dictionary."""
        if number not in self._newest and live_memories >= self._train_at.get(number, TRAINING_SAMPLES):
            with self._lock:
                self._untrained.add(number)

    def postpone(self, number: int, live_memories: int) -> None:
        """No dictionary pays for the namespace as it is; one may when it has doubled."""
        with self._lock:
            self._train_at[number] = 2 * max(live_memories, TRAINING_SAMPLES)
            self._untrained.discard(number)

    def untrained(self) -> list[int]:
        """The numbers of namespaces that training should be tried for."""
        with self._lock:
            return sorted(self._untrained)

    def retired(self) -> list[int]:
        """The ids of dictionaries that records may still use and should not."""
        with self._lock:
            return sorted(self._retired)

    def next_id(self, number: int) -> int:
        """An id for a dictionary of a namespace; until ``take_up`` or ``forget`` it is about to be stored.

        It is one that this process has not seen, so that no reader can take another's dictionary for it.
        """
        with self._lock:
            self._last_id += 1
            self._ids.setdefault(number, set()).add(self._last_id)
            return self._last_id

    def forget(self, dictionary_id: int) -> None:
        """A dictionary is no longer in the store, or did not come into it."""
        with self._lock:
            for ids in self._ids.values():
                ids.discard(dictionary_id)
            self._retired.discard(dictionary_id)
            self._ready.pop(dictionary_id, None)


def _has(ascending: Sequence[int], value: int) -> bool:
    place = bisect_left(ascending, value)
    return place < len(ascending) and ascending[place] == value
