"""The model of a disk: what may be left of which writes."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from disk_trace import SECTOR_BYTES, TraceError, TraceRecord, crash_image, read_trace

IMAGES = 300
PAGE = 4 * SECTOR_BYTES


class Trace:
    """Records as the shim would append them."""

    def __init__(self) -> None:
        self.records: list[TraceRecord] = []

    def add(self, kind: str, offset: int = 0, length: int = 0, fill: bytes = b"") -> Trace:
        data = memoryview(fill * (length // max(len(fill), 1)))
        self.records.append(TraceRecord(len(self.records) + 1, kind, offset, length, data, 0))
        return self

    def write(self, page: int, fill: bytes) -> Trace:
        return self.add("W", page * PAGE, PAGE, fill)

    def sync(self, kind: str = "S") -> Trace:
        """A sync that covers everything so far."""
        return self.add(kind, len(self.records))

    def images(self) -> set[bytes]:
        return {crash_image(self.records, len(self.records), random.Random(seed)) for seed in range(IMAGES)}


def sectors(images: set[bytes], number: int) -> set[bytes]:
    """The first bytes that this sector has in the images, b"" where the file ends before it."""
    return {image[number * SECTOR_BYTES : number * SECTOR_BYTES + 1] for image in images}


def test_what_was_synced_is_there() -> None:
    assert Trace().write(0, b"a").write(1, b"b").sync().images() == {b"a" * PAGE + b"b" * PAGE}


def test_what_was_not_synced_may_be_there_torn_and_out_of_order() -> None:
    images = Trace().write(0, b"a").sync().write(0, b"b").write(1, b"c").images()
    assert sectors(images, 0) == {b"a", b"b"}
    assert b"a" * PAGE in images
    assert b"b" * PAGE + b"c" * PAGE in images
    assert b"a" * PAGE + b"c" * PAGE in images
    torn = {image for image in images if len(set(image[:PAGE])) > 1}
    assert torn
    assert all(
        len(set(image[start : start + SECTOR_BYTES])) == 1
        for image in images
        for start in range(0, len(image), SECTOR_BYTES)
    )


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    trace = Trace().write(0, b"a").write(1, b"b").add("S", 1)
    assert sectors(trace.images(), 0) == {b"a"}
    assert sectors(trace.images(), 4) == {b"b", b"\0", b""}


def test_a_durable_write_leaves_the_others_waiting() -> None:
    trace = Trace().write(0, b"a").write(1, b"b").add("W", 0, 8, b"c").add("D", 0, 8)
    images = trace.images()
    assert {image[:8] for image in images} == {b"c" * 8}
    assert sectors(images, 1) == {b"a", b"\0", b""}
    assert sectors(images, 4) == {b"b", b"\0", b""}


def test_what_waited_for_a_failed_sync_may_be_lost_in_spite_of_a_later_one() -> None:
    images = Trace().write(0, b"a").sync("E").write(1, b"b").sync().images()
    assert sectors(images, 0) == {b"a", b"\0"}
    assert sectors(images, 4) == {b"b"}


def test_a_truncation_may_be_there_or_not() -> None:
    trace = Trace().write(0, b"a").write(1, b"b").sync().add("T", PAGE)
    assert trace.images() == {b"a" * PAGE, b"a" * PAGE + b"b" * PAGE}


def test_allocated_space_is_zeros() -> None:
    trace = Trace().write(0, b"a").add("A", PAGE, PAGE).sync()
    assert trace.images() == {b"a" * PAGE + b"\0" * PAGE}


def test_a_trace_that_does_not_say_everything_is_refused(tmp_path: Path) -> None:
    def stored(*headers: tuple[int, bytes]) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(b"".join(struct.pack("<4Q", number, kind[0], 0, 0) for number, kind in headers))
        return path

    assert len(read_trace(stored((1, b"S"), (2, b"S")))) == 2
    with pytest.raises(TraceError, match="mapped for writing"):
        read_trace(stored((1, b"M")))
    with pytest.raises(TraceError, match="gaps"):
        read_trace(stored((1, b"S"), (3, b"S")))
