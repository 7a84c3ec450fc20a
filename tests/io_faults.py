"""A writer whose disk fails: calls on its data file, under the load of some clients."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Node, Stubs, wait_until
from disk_shim import Fault, shim_environment
from disk_trace import faults, read_trace
from ledger import Ledger
from power_cut import Recording
from store_audit import Damaged, audit
from writing_clients import WritingClients, served

NAMESPACE = "faults"
AFTERWARDS = "afterwards"
CLIENTS = 3
# Acknowledged before the fault, and again after it where the writer goes on.
WRITES = 10
REFUSED_WRITES = 20
FLAGS = ("--embedder", "none", "--map-size-bytes", str(1024**2))
STORE_FULL = "RESOURCE_EXHAUSTED STORE_FULL"
COMMIT_FAILED = "UNAVAILABLE COMMIT_FAILED"


@dataclass(slots=True)
class FaultResult:
    """What a fault led to.

    Args:
        fault: what was asked for.
        recording: the run, for power cuts after the fault.
        call: the call that failed first: w for a write, m for one of the meta page, s for a sync.
        exit_code: of the writer; None when it went on.
        errors: what the clients were answered with, and how often.
        acknowledged: how many writes were acknowledged in all.
        problems: what is not as it should be after a restart; empty when all is well.
    """

    fault: Fault
    recording: Recording
    call: str = ""
    exit_code: int | None = None
    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    problems: list[str] = field(default_factory=list)


def ends_writer(fault: Fault, call: str) -> bool:
    """Whether a writer has to end when the call fails so: it cannot know what is on the disk.

    A full disk is another matter: what could not be written is refused, and nothing refers to it. But when
    the meta page could not be written, LMDB gives up, and it may be on the disk.
    """
    return fault.kind in ("EIO", "SHORT") or (fault.kind == "ENOSPC" and call == "m")


def run_fault(folder: Path, library: Path, fault: Fault, seed: str, clients: int = CLIENTS) -> FaultResult:
    """Starts a writer, lets clients write, makes the fault, and compares what a restarted writer holds.

    A writer that goes on has to acknowledge writes again: at once after a single fault, and when the trigger
    is gone after a lasting one. Until then it has to serve reads. What the only one of ``clients`` wrote is
    committed alone, and not written again when its group found no room.
    """
    folder.mkdir(parents=True)
    trace, trigger = folder / "trace", folder / "trigger"
    node = Node(
        "agentmem.server",
        folder / "writer",
        *FLAGS,
        environment=shim_environment(library, trace, fault, trigger),
    )
    load = WritingClients(NAMESPACE, clients=clients, seed=seed, trace=trace)
    try:
        node.wait_ready()
        load.start(node.address)
        _wait_acknowledged(node, load, WRITES)
        result = FaultResult(fault, Recording(trace, folder / "ledger.json", trace.stat().st_size))
        trigger.touch()
        wait_until(lambda: bool(faults(read_trace(trace))), f"{fault} is met")
        result.call = faults(read_trace(trace))[0]
        if ends_writer(fault, result.call):
            wait_until(lambda: node.process.poll() is not None, "the writer ends")
        else:
            _go_on(node, load, fault, trigger)
        load.stop()
        result.exit_code = node.process.poll()
    finally:
        load.stop()
        node.stop()
    load.ledger.save(result.recording.ledger)
    result.errors = load.errors()
    result.acknowledged = load.ledger.acknowledged()
    result.problems = _problems_after_restart(folder / "writer", load.ledger)
    return result


def _go_on(node: Node, load: WritingClients, fault: Fault, trigger: Path) -> None:
    """Returns when the writer, with the fault over, has acknowledged writes again."""
    if fault.lasting:
        wait_until(
            lambda: load.errors()[STORE_FULL] >= REFUSED_WRITES or node.process.poll() is not None,
            f"{REFUSED_WRITES} writes are refused",
        )
        # Nothing is being written when the disk gets room: asked about a failure, it tells the truth.
        load.stop()
        stubs = Stubs(node.address)
        problems = load.ledger.problems(served(stubs, NAMESPACE))
        assert not problems, f"while writes are refused: {problems}"
        stubs.channel.close()
        trigger.unlink()
        load.start(node.address)
    # An answer may have been on its way to each client.
    _wait_acknowledged(node, load, load.ledger.acknowledged() + CLIENTS + WRITES)


def _wait_acknowledged(node: Node, load: WritingClients, writes: int) -> None:
    wait_until(
        lambda: load.ledger.acknowledged() >= writes or node.process.poll() is not None,
        f"{writes} writes are acknowledged",
    )
    assert node.process.poll() is None, f"the writer ended: {''.join(node.log)}"


def _problems_after_restart(data_dir: Path, ledger: Ledger) -> list[str]:
    """What a writer on a sound disk does not serve, cannot do or has not stored."""
    node = Node("agentmem.server", data_dir, *FLAGS)
    try:
        node.wait_ready()
        stubs = Stubs(node.address)
        problems = ledger.problems(served(stubs, ledger.namespace))
        stubs.channel.close()
        afterwards = WritingClients(AFTERWARDS, clients=1, seed="", max_writes=WRITES)
        afterwards.start(node.address)
        afterwards.join()
        problems += [f"afterwards: {reason}" for reason in afterwards.errors()]
        node.terminate()
    finally:
        node.stop()
    try:
        stored = audit(data_dir / "store", [ledger.namespace, AFTERWARDS])
    except Damaged as damage:
        return [*problems, str(damage)]
    for kept in (ledger, afterwards.ledger):
        problems += kept.problems(stored[kept.namespace])
    return problems
