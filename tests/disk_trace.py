"""What a process wrote to its data.mdb, call by call, and what a power cut could have left of it.

The trace comes from disk_shim.c. A crash image is the file as it may be found after a cut:

- what a completed sync covers, or was written through a descriptor with O_DSYNC, is there;
- of what was written later any part may be there: writes whole, writes torn on sectors of 512 bytes, in any
  order, with the file as long as it was or shorter;
- what was waiting when a sync failed may be there or lost for good, also when a later sync succeeds: the
  kernel marks such pages clean.

A sector as a whole is written or not, as disks promise.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR_BYTES = 512
_HEADER = struct.Struct("<4Q")


class TraceError(Exception):
    """The trace does not say all that happened, so that nothing follows from it."""


class TraceRecord(NamedTuple):
    """One call on the data file; ``end_bytes`` is the size of the trace with it."""

    number: int
    kind: str
    offset: int
    length: int
    data: memoryview
    end_bytes: int

    @property
    def is_write(self) -> bool:
        return self.kind in "WTA"


def read_trace(path: Path) -> list[TraceRecord]:
    """The whole records of a trace. Raises TraceError when they are not all that happened to the file."""
    content = memoryview(path.read_bytes())
    trace = []
    start = 0
    while start + _HEADER.size <= len(content):
        number, kind_code, offset, length = _HEADER.unpack_from(content, start)
        kind = chr(kind_code)
        data_start = start + _HEADER.size
        start = data_start + (length if kind == "W" else 0)
        if start > len(content):
            break
        if kind == "M":
            raise TraceError(
                "the data file was mapped for writing, or changed otherwise: the trace does not have it all"
            )
        trace.append(TraceRecord(number, kind, offset, length, content[data_start:start], start))
    if [record.number for record in trace] != list(range(1, len(trace) + 1)):
        raise TraceError(f"{path} has gaps")
    return trace


def faults(trace: Sequence[TraceRecord]) -> list[str]:
    """The calls that were made to fail: w for a write, m for one of the meta page, s for a sync."""
    return [chr(record.length) for record in trace if record.kind == "F"]


# Whether a sector of a write reached the disk.
Reached = Callable[[int], bool]


@dataclass(slots=True)
class Disk:
    """The data file while a trace is played: what is surely on the disk, and what is on its way there."""

    durable: bytearray = field(default_factory=bytearray)
    waiting: list[TraceRecord] = field(default_factory=list)

    def play(self, record: TraceRecord, chance: random.Random) -> None:
        """Goes on by one call. ``chance`` decides what is left when a sync fails."""
        if record.is_write:
            self.waiting.append(record)
        elif record.kind == "D":
            self._sync_range(record.offset, record.offset + record.length)
        elif record.kind in "SE":
            covered = [write for write in self.waiting if write.number <= record.offset]
            self.waiting = self.waiting[len(covered) :]
            self._settle(covered, [_always] * len(covered) if record.kind == "S" else _luck(covered, chance))

    def cut(self, chance: random.Random) -> bytes:
        """The file as a power cut at this moment may leave it."""
        full_bytes = len(self.durable)
        for write in self.waiting:
            full_bytes = write.offset if write.kind == "T" else max(full_bytes, _end(write))
        self._settle(self.waiting, _luck(self.waiting, chance))
        if len(self.durable) < full_bytes and chance.random() < 0.25:
            # The new length reached the disk, what stands there did not.
            self.durable.extend(bytes(full_bytes - len(self.durable)))
        return bytes(self.durable)

    def _settle(self, writes: Sequence[TraceRecord], luck: Sequence[Reached]) -> None:
        """Brings the sectors that reach the disk there, as they were in memory after each write."""
        if all(reached is _always for reached in luck):
            for write in writes:
                _apply(write, self.durable)
            return
        memory = bytearray(self.durable)
        for write, reached in zip(writes, luck, strict=True):
            _apply(write, memory)
            if write.kind != "W":
                if reached(0):
                    _apply(write, self.durable)
                continue
            for sector in range(write.offset // SECTOR_BYTES, -(-_end(write) // SECTOR_BYTES)):
                if reached(sector):
                    start = sector * SECTOR_BYTES
                    content = memory[start : start + SECTOR_BYTES]
                    if len(self.durable) < start:
                        self.durable.extend(bytes(start - len(self.durable)))
                    self.durable[start : start + len(content)] = content

    def _sync_range(self, start: int, end: int) -> None:
        """What is waiting in the sectors of the range is on the disk; the rest goes on waiting."""
        start = start // SECTOR_BYTES * SECTOR_BYTES
        end = -(-end // SECTOR_BYTES) * SECTOR_BYTES
        waiting = []
        for write in self.waiting:
            if write.kind != "W" or _end(write) <= start or write.offset >= end:
                waiting.append(write)
                continue
            for part, synced in (
                (_part(write, write.offset, start), False),
                (_part(write, start, end), True),
                (_part(write, end, _end(write)), False),
            ):
                if part.length and synced:
                    _apply(part, self.durable)
                elif part.length:
                    waiting.append(part)
        self.waiting = waiting


def _part(write: TraceRecord, start: int, end: int) -> TraceRecord:
    """The bytes of a write that lie between the two offsets."""
    start = max(start, write.offset)
    end = max(start, min(end, _end(write)))
    data = write.data[start - write.offset : end - write.offset]
    return write._replace(offset=start, length=end - start, data=data)


def _end(write: TraceRecord) -> int:
    return write.offset + write.length


def _apply(write: TraceRecord, content: bytearray) -> None:
    if write.kind == "T":
        del content[write.offset :]
    if len(content) < write.offset:
        content.extend(bytes(write.offset - len(content)))
    if write.kind == "W":
        content[write.offset : _end(write)] = write.data
    elif write.kind == "A" and len(content) < _end(write):
        content.extend(bytes(_end(write) - len(content)))


def _always(_: int) -> bool:
    return True


def _never(_: int) -> bool:
    return False


def _luck(writes: Sequence[TraceRecord], chance: random.Random) -> list[Reached]:
    """Which sectors of each write reach the disk: those of the older writes, or some of any."""

    def torn() -> Reached:
        share = chance.random()
        return lambda _: chance.random() < share

    if writes and chance.random() < 0.3:
        older = chance.randrange(len(writes))
        return [_always] * older + [torn()] + [_never] * (len(writes) - older - 1)
    share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    torn_share = chance.choice((0.0, 0.3, 1.0)) if 0.0 < share < 1.0 else 0.0
    return [
        torn() if chance.random() < torn_share else _always if chance.random() < share else _never
        for _ in writes
    ]


def whole_file(trace: Sequence[TraceRecord]) -> bytes:
    """The file when everything reached the disk."""
    content = bytearray()
    for record in trace:
        if record.is_write:
            _apply(record, content)
    return bytes(content)


def choose_cut(trace: Sequence[TraceRecord], first_bytes: int, chance: random.Random) -> int:
    """A random moment for a cut, as a number of records, at which the trace had at least ``first_bytes``.

    Every other one lies at a sync or a durable write: right before or right behind it.
    """
    first = next(index for index, record in enumerate(trace) if record.end_bytes >= first_bytes) + 1
    edges = [index for index in range(first, len(trace)) if trace[index].kind in "DSE"]
    if edges and chance.random() < 0.5:
        return chance.choice(edges) + chance.randint(0, 1)
    return chance.randint(first, len(trace))


def crash_image(trace: Sequence[TraceRecord], cut: int, chance: random.Random) -> bytes:
    """What the first ``cut`` records may have left on the disk."""
    disk = Disk()
    for record in trace[:cut]:
        disk.play(record, chance)
    return disk.cut(chance)
