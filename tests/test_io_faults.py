"""A failing disk makes the writer acknowledge nothing that is not there; a full one, refuse and go on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Node, Stubs, wait_until
from disk_shim import Fault, NoShim, build_shim
from io_faults import COMMIT_FAILED, FLAGS, REFUSED_WRITES, STORE_FULL, ends_writer, run_fault
from power_cut import check_images, fast_folder, keep
from writing_clients import WritingClients, served

SEED = "faults"
# About what four commits take.
CALLS = 40
IMAGES = 20
MIB = 1024**2


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


def sampled() -> list[Fault]:
    """Each way to fail on each kind of call, and two calls out of all."""
    chance = random.Random(SEED)
    kinds = [(kind, calls) for kind in ("EIO", "ENOSPC") for calls in "wms"] + [("SHORT", "w")]
    return [
        *(Fault(kind, calls, chance.randint(1, 5)) for kind, calls in kinds),
        *(Fault(kind, nth=chance.randint(1, CALLS)) for kind in ("EIO", "SHORT")),
        Fault("ENOSPC", nth=chance.randint(1, CALLS), lasting=True),
        Fault("FULL", lasting=True),
    ]


@pytest.mark.parametrize("fault", sampled(), ids=str)
def test_a_fault_of_the_disk(folder: Path, library: Path, fault: Fault) -> None:
    # A client alone is told what became of the very commit that failed.
    result = run_fault(folder / str(fault), library, fault, SEED, clients=1 if fault.calls == "m" else 3)
    assert result.problems == []
    told = set(result.errors)
    if ends_writer(fault, result.call):
        assert result.exit_code == 1
        assert COMMIT_FAILED in told
        assert STORE_FULL not in told
    else:
        assert result.exit_code is None
        # A group that found no room is written command by command, which may succeed.
        assert told == {STORE_FULL} if fault.lasting else told <= {STORE_FULL}
    checked = check_images(result.recording, folder / f"{fault}-images", images=IMAGES, seed=SEED)
    assert checked.images == IMAGES
    assert checked.faultless, f"{checked.summary()}; {keep(result.recording, SEED)}"


def test_a_store_at_its_limit_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    node = Node(
        "agentmem.server", tmp_path / "writer", *FLAGS, *("--max-map-size-bytes", str(MIB))
    ).wait_ready()
    load = WritingClients("ns", clients=2, seed=SEED)
    try:
        load.start(node.address)
        wait_until(lambda: load.errors()[STORE_FULL] >= REFUSED_WRITES, "writes are refused")
        load.stop()
        assert set(load.errors()) == {STORE_FULL}
        stubs = Stubs(node.address)
        assert load.ledger.problems(served(stubs, "ns")) == []
        stubs.channel.close()
        assert node.terminate() == 0
    finally:
        load.stop()
        node.stop()
    # With more room it takes writes again.
    node = Node("agentmem.server", tmp_path / "writer", *FLAGS).wait_ready()
    try:
        stubs = Stubs(node.address)
        assert load.ledger.problems(served(stubs, "ns")) == []
        stubs.channel.close()
        more = WritingClients("more", clients=1, seed=SEED, max_writes=10)
        more.start(node.address)
        more.join()
        assert more.ledger.acknowledged() == 10
    finally:
        node.stop()
