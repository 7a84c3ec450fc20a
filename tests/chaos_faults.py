"""A cluster whose nodes are killed, stopped, restarted, emptied and promoted at random, several at a time."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import grpc
from cluster import Node, Stubs, wait_until

from agentmem.v1 import cluster_pb2

WRITER, REPLICA = cluster_pb2.NODE_ROLE_WRITER, cluster_pb2.NODE_ROLE_REPLICA
MAX_FAULTS_AT_A_TIME = 2
MIN_STOP_S, MAX_STOP_S = 0.1, 6.0
MAX_DOWN_S = 3.0
MAX_PAUSE_S = 1.5
ASK_TIMEOUT_S = 2.0
PROMOTE_TIMEOUT_S = 40.0
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
NO_WRITER_TIMEOUT_S = 60.0
AGREEMENT_TIMEOUT_S = 90.0
SHOWN_LOG_LINES = 15
HANG_SIGNAL = signal.SIGUSR1
HANG_NOTE_S = 1.0

# How often each is drawn.
WEIGHTS = {
    "replica killed": 3,
    "writer killed": 2,
    "replica stopped for a while": 3,
    "writer stopped for a while": 2,
    "replica restarted": 2,
    "writer restarted": 1,
    "replica emptied": 1,
    "handover": 2,
    "failover after kill": 2,
    "failover while stopped": 1,
}


class ChaosNode(Node):
    """A node whose log goes to a file, and that may be started without waiting for it."""

    def __init__(self, module: str, data_dir: Path, *flags: str) -> None:
        self.log_path = data_dir.with_suffix(".log")
        self.is_meant_to_run = True
        super().__init__(module, data_dir, *flags)

    def _read_log(self, lines: TextIO) -> None:
        with open(self.log_path, "a", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{time.monotonic():.3f} {line}")
                file.flush()
                self.log.append(line)

    def begin(self) -> None:
        """Starts it on its data, at its address, and does not wait."""
        self._start()
        self.is_meant_to_run = True

    def kill(self) -> None:
        self.is_meant_to_run = False
        super().kill()

    def terminate(self) -> int:
        self.is_meant_to_run = False
        self.process.terminate()
        # The disk is shared with three other nodes.
        self.process.wait(END_TIMEOUT_S)
        return self._wait()

    @property
    def name(self) -> str:
        return self.data_dir.name

    def describe(self, timeout_s: float = ASK_TIMEOUT_S) -> cluster_pb2.GetNodeResponse | None:
        """What it says of itself; None when it does not answer."""
        with Stubs(self.address) as stubs:
            try:
                return stubs.cluster.GetNode(cluster_pb2.GetNodeRequest(), timeout=timeout_s)
            except grpc.RpcError:
                return None


@dataclass(slots=True)
class FaultCounts:
    """What was done to the cluster.

    Attributes:
        faults: by kind.
        outcomes: of promotions, by what came of them.
        promoted: epochs, with the revision of the first entry of each.
        handed_over: epochs that began with all that the writer before had acknowledged.
        may_lose_replicated: epochs whose promotion could not ask all replicas.
        problems: what should not have happened.
        diary: one line for each event, with the time.
    """

    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    promoted: dict[int, int] = field(default_factory=dict)
    handed_over: set[int] = field(default_factory=set)
    may_lose_replicated: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    diary: list[str] = field(default_factory=list)


class ChaosCluster:
    """A writer and replicas; which of them is the writer changes."""

    def __init__(self, path: Path, *, replicas: int, flags: Sequence[str]) -> None:
        self.path = path
        self.saved = path / "saved-set-aside"
        self.saved.mkdir(parents=True)
        first = ChaosNode("agentmem.server", path / "node-0", "--node-id", "node-0", *flags)
        self.nodes = [first]
        first.wait_ready()
        for number in range(1, replicas + 1):
            name = f"node-{number}"
            self.nodes.append(
                ChaosNode(
                    "agentmem.replica", path / name, "--node-id", name, "--writer", first.address, *flags
                )
            )
        for node in self.nodes[1:]:
            node.wait_ready()

    def writer(self) -> ChaosNode | None:
        """The node that is the writer of the newest epoch, as far as nodes answer."""
        found = [(answer, node) for node in self.nodes if (answer := node.describe(1.0)) is not None]
        writers = [(answer.known_epoch, node) for answer, node in found if answer.node.role == WRITER]
        newest = max((answer.known_epoch for answer, _ in found), default=0)
        return next((node for epoch, node in writers if epoch == newest), None)

    def wait_agreement(self) -> cluster_pb2.Position:
        """Returns when all nodes serve, one of them as the writer, all at the position that is returned."""
        found: list[cluster_pb2.GetNodeResponse] = []

        def agreed() -> bool:
            found[:] = [answer for node in self.nodes if (answer := node.describe(1.0)) is not None]
            return (
                len(found) == len(self.nodes)
                and sum(answer.node.role == WRITER for answer in found) == 1
                and all(answer.node.state == cluster_pb2.NODE_STATE_SERVING for answer in found)
                and all(
                    answer.node.role == WRITER or answer.node.searchable_revision == answer.position.revision
                    for answer in found
                )
                and len({answer.position.SerializeToString() for answer in found}) == 1
            )

        try:
            wait_until(agreed, "all nodes agree", AGREEMENT_TIMEOUT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(map(str, found))) from error
        return found[0].position

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()


class Faults:
    """Does harm from a thread of its own until stopped, and then leaves every node running."""

    def __init__(self, cluster: ChaosCluster, *, seed: str, weights: dict[str, int] | None = None) -> None:
        self.counts = FaultCounts()
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._weights = WEIGHTS if weights is None else weights
        self._stopping = threading.Event()
        self._writer_seen_s = time.monotonic()
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._pool = ThreadPoolExecutor(MAX_FAULTS_AT_A_TIME)
        self._running: list[Future[None]] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping.clear()
        self._writer_seen_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when every fault is over and every node runs. Raises what a fault raised."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        for fault in self._running:
            fault.result()
        self._running.clear()

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0, MAX_PAUSE_S)):
            self._running = [fault for fault in self._running if not _is_over(fault)]
            self.check_alive()
            if self._weights and len(self._running) < MAX_FAULTS_AT_A_TIME:
                kind = self._chance.choices(list(self._weights), list(self._weights.values()))[0]
                self._begin(kind, random.Random(self._chance.random()))

    def _begin(self, kind: str, chance: random.Random) -> None:
        writer = self._cluster.writer()
        replicas = [node for node in self._cluster.nodes if node is not writer]
        self._check_writer(writer)
        if writer is None or (not kind.startswith("replica") and writer.name in self._busy):
            return
        free = [node for node in replicas if node.name not in self._busy]
        if not free:
            return
        replica = chance.choice(free)
        work: Callable[[], None]
        held = [writer, replica]
        match kind:
            case "replica killed" | "replica stopped for a while" | "replica restarted":
                held, work = [replica], self._harm(kind, replica, chance)
            case "writer killed" | "writer stopped for a while" | "writer restarted":
                held, work = [writer], self._harm(kind, writer, chance)
            case "replica emptied":
                # One that began as the writer would found another cluster.
                free = [node for node in free if node is not self._cluster.nodes[0]]
                # Of a promotion at the same time nobody could say what it may lose.
                if not free or self._busy:
                    return
                replica = free[0]
                held, work = self._cluster.nodes, lambda: self._empty(replica)
            case "handover":
                work = lambda: self._hand_over(writer, replica)  # noqa: E731
            case "failover after kill":
                work = lambda: self._fail_over(writer, replica, chance, is_kill=True)  # noqa: E731
            case _:
                work = lambda: self._fail_over(writer, replica, chance, is_kill=False)  # noqa: E731
        self._running.append(self._pool.submit(self._do, kind, held, work))

    def _do(self, kind: str, held: Sequence[ChaosNode], work: Callable[[], None]) -> None:
        with self._holding(held):
            self._note(f"{kind}: {', '.join(node.name for node in held)}")
            work()
            self.counts.faults[kind] += 1
            self._note(f"{kind}: over")

    @contextmanager
    def _holding(self, nodes: Sequence[ChaosNode]) -> Iterator[None]:
        names = {node.name for node in nodes}
        with self._lock:
            self._busy |= names
        try:
            yield
        finally:
            with self._lock:
                self._busy -= names

    def _note(self, what: str) -> None:
        self.counts.diary.append(f"{time.monotonic():.3f} {what}")

    def _wait(self, seconds: float) -> None:
        """Unless it is to end."""
        self._stopping.wait(seconds)

    def _harm(self, kind: str, node: ChaosNode, chance: random.Random) -> Callable[[], None]:
        down_s, stop_s = chance.uniform(0, MAX_DOWN_S), chance.uniform(MIN_STOP_S, MAX_STOP_S)

        def kill() -> None:
            node.kill()
            self._wait(down_s)
            node.begin()

        def stop() -> None:
            node.pause()
            self._wait(stop_s)
            node.resume()

        def restart() -> None:
            self.end(node)
            self._wait(down_s)
            node.begin()

        return kill if kind.endswith("killed") else stop if "stopped" in kind else restart

    def end(self, node: ChaosNode) -> None:
        try:
            code = node.terminate()
        except subprocess.TimeoutExpired:
            # So that it says in its log where it is.
            node.process.send_signal(HANG_SIGNAL)
            time.sleep(HANG_NOTE_S)
            self._problem(f"{node.name} did not end within {END_TIMEOUT_S:g} s of SIGTERM")
            node.kill()
            return
        # While a process starts it has no handler yet.
        if code not in (0, -signal.SIGTERM):
            self._problem(f"{node.name} ended with exit code {code} after SIGTERM: {_last_lines(node)}")

    def _empty(self, node: ChaosNode) -> None:
        answer = node.describe()
        if answer is None or answer.node.role != REPLICA or answer.node.state != 2:
            return
        node.kill()
        _save_set_aside(node, self._cluster.saved)
        shutil.rmtree(node.data_dir)
        node.begin()
        self._wait_serving(node)

    def _wait_serving(self, node: ChaosNode) -> None:
        def serves() -> bool:
            answer = node.describe(1.0)
            return answer is not None and answer.node.state == cluster_pb2.NODE_STATE_SERVING

        try:
            wait_until(serves, f"{node.name} serves", READY_TIMEOUT_S)
        except AssertionError as error:
            self._problem(f"{error}: {_last_lines(node)}")

    def _hand_over(self, writer: ChaosNode, replica: ChaosNode) -> None:
        self._promote(replica, writer)

    def _fail_over(
        self, writer: ChaosNode, replica: ChaosNode, chance: random.Random, *, is_kill: bool
    ) -> None:
        if is_kill:
            writer.kill()
        else:
            writer.pause()
        try:
            self._wait(chance.uniform(0, 1))
            self._promote(replica, writer)
            self._wait(chance.uniform(0, 4))
        finally:
            if is_kill:
                writer.begin()
            else:
                writer.resume()

    def _promote(self, replica: ChaosNode, writer: ChaosNode) -> None:
        for _ in range(3):
            with Stubs(replica.address) as stubs:
                try:
                    answer = stubs.cluster.Promote(cluster_pb2.PromoteRequest(), timeout=PROMOTE_TIMEOUT_S)
                except grpc.RpcError as error:
                    call: grpc.Call = error  # type: ignore[assignment]
                    said = f"{call.code().name}: {call.details()}"
                    self._note(f"{replica.name} was not promoted: {said}")
                    self.counts.outcomes[f"refused, {said.split(':')[0]}"] += 1
                    better = [node for node in self._cluster.nodes if f" {node.address} " in said]
                    if not better or better[0].name in self._busy:
                        return
                    replica = better[0]
                    continue
            self._note(f"{replica.name} is the writer of epoch {answer.epoch}: {answer}")
            self.counts.outcomes["handed over" if answer.handed_over else "without the writer before"] += 1
            others = {node.address for node in self._cluster.nodes} - {replica.address, writer.address}
            self.counts.promoted[answer.epoch] = answer.revision + 1
            if answer.handed_over:
                self.counts.handed_over.add(answer.epoch)
            elif not others <= set(answer.told_addresses):
                self.counts.may_lose_replicated.add(answer.epoch)
            return

    def _problem(self, what: str) -> None:
        self._note(what)
        self.counts.problems.append(what)

    def _check_writer(self, writer: ChaosNode | None) -> None:
        """Notes when nobody does harm and yet there is no writer for long; starts all nodes anew then."""
        now_s = time.monotonic()
        if writer is not None or self._busy:
            self._writer_seen_s = now_s
        elif now_s > self._writer_seen_s + NO_WRITER_TIMEOUT_S:
            self._problem(f"there was no writer for {NO_WRITER_TIMEOUT_S:g} s, though all nodes ran")
            for node in self._cluster.nodes:
                node.kill()
            for node in self._cluster.nodes:
                node.begin()
            self._writer_seen_s = time.monotonic()

    def check_alive(self) -> None:
        for node in self._cluster.nodes:
            with self._lock:
                has_ended = (
                    node.name not in self._busy and node.is_meant_to_run and node.process.poll() is not None
                )
            if has_ended:
                self._problem(
                    f"{node.name} ended by itself with exit code {node.process.returncode}: "
                    f"{_last_lines(node)}"
                )
                node.begin()


def _is_over(fault: Future[None]) -> bool:
    if fault.done():
        fault.result()
    return fault.done()


def _last_lines(node: ChaosNode) -> str:
    return "".join(list(node.log)[-SHOWN_LOG_LINES:])


def _save_set_aside(node: ChaosNode, folder: Path) -> None:
    """What an emptied node had set aside is still what was left behind."""
    found = node.data_dir / "set-aside"
    for path in found.iterdir() if found.is_dir() else ():
        shutil.copy(path, folder / f"{node.name}-{time.monotonic_ns()}-{path.name}")


def set_aside_files(cluster: ChaosCluster) -> list[Path]:
    """All files of what promotions left behind, of nodes that were emptied too."""
    paths = [cluster.saved / name for name in os.listdir(cluster.saved)]
    for node in cluster.nodes:
        folder = node.data_dir / "set-aside"
        paths += [folder / name for name in os.listdir(folder)] if folder.is_dir() else []
    return paths
