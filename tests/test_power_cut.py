"""What a power cut leaves on the disk is a sound store with everything that was acknowledged.

Every state that a cut could leave is worked out from the calls the writer made; see disk_trace.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_shim import NoShim, build_shim
from disk_trace import TraceRecord, crash_image, read_trace
from power_cut import Recording, check_images, fast_folder, keep, record

SEED = "power"
IMAGES = 100
CLIENTS = 6
WRITES = 100


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with fast_folder() as path:
        yield path


@pytest.fixture(scope="module")
def library(folder: Path) -> Path:
    try:
        return build_shim(folder)
    except NoShim as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def recording(folder: Path, library: Path) -> Recording:
    return record(folder / "synced", library, seed=SEED, clients=CLIENTS, writes=WRITES)


def test_a_power_cut_loses_nothing_acknowledged(folder: Path, recording: Recording) -> None:
    assert recording.acknowledged() == CLIENTS * WRITES
    checked = check_images(recording, folder, images=IMAGES, seed=SEED)
    assert checked.images == IMAGES
    assert checked.faultless, f"{checked.summary()}; {keep(recording, SEED)}"


@pytest.mark.parametrize("without", ["sync", "metasync"])
def test_a_writer_that_does_not_sync_is_caught(folder: Path, library: Path, without: str) -> None:
    """The control: with syncs left out, the same cuts must find losses."""
    unsynced = record(
        folder / without,
        library,
        seed=SEED,
        clients=CLIENTS,
        writes=WRITES,
        module="unsynced_server",
        environment={"WITHOUT": without},
    )
    assert unsynced.acknowledged() == CLIENTS * WRITES
    checked = check_images(unsynced, folder / f"{without}-images", images=IMAGES, seed=SEED)
    assert checked.images == IMAGES
    assert any("was acknowledged" in line for lines in checked.losses.values() for line in lines)
    # Without the sync of the pages the cuts tear the trees as well; the meta page cannot be torn.
    assert bool(checked.damaged) == (without == "sync")


def test_an_image_comes_back_from_its_seed(recording: Recording) -> None:
    trace = read_trace(recording.trace)
    unsynced = max(range(1, len(trace)), key=lambda cut: _unsynced_bytes(trace, cut))
    images = [crash_image(trace, unsynced, random.Random(seed)) for seed in range(20)]
    assert images == [crash_image(trace, unsynced, random.Random(seed)) for seed in range(20)]
    assert len(set(images)) > 5


def _unsynced_bytes(trace: list[TraceRecord], cut: int) -> int:
    """How much was written since the last sync when the trace is cut there."""
    total = 0
    for entry in reversed(trace[:cut]):
        if entry.kind in "DS":
            break
        total += entry.length
    return total
