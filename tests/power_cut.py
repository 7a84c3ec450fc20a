"""Power cuts: a writer's run is recorded, and images of what its disk may have held are checked."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Node
from disk_shim import shim_environment
from disk_trace import TraceError, read_trace, whole_file
from ledger import Ledger
from writing_clients import WritingClients

TESTS = Path(__file__).parent
NAMESPACE = "power"
# A damaged tree may send LMDB round in circles.
IMAGE_TIMEOUT_S = 60.0
# Small, so that the map grows during the run.
MAP_SIZE_BYTES = 1024**2
MIN_MEMORY_BYTES = 1024**3


@dataclass(frozen=True, slots=True)
class Recording:
    """What is left of a run. No image is cut before ``first_bytes`` of the trace."""

    trace: Path
    ledger: Path
    first_bytes: int

    def acknowledged(self) -> int:
        return Ledger.load(self.ledger).acknowledged()


@dataclass(slots=True)
class Checked:
    """What became of a number of images: by number, the damage to the store or what it does not hold."""

    images: int = 0
    damaged: dict[int, str] = field(default_factory=dict)
    losses: dict[int, list[str]] = field(default_factory=dict)

    def add(self, number: int, damage: str, losses: list[str]) -> None:
        self.images += 1
        if damage:
            self.damaged[number] = damage
        if losses:
            self.losses[number] = losses

    @property
    def faultless(self) -> bool:
        return not self.damaged and not self.losses

    def summary(self) -> str:
        """The first images that are not as they should be."""
        lost = {number: found[0] for number, found in self.losses.items()}
        first = sorted((self.damaged | lost).items())[:5]
        return "; ".join(f"image {number}: {problem}" for number, problem in first)


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is room: images are many, and need no disk to be checked."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= MIN_MEMORY_BYTES
    with tempfile.TemporaryDirectory(prefix="agentmem-crash-", dir=memory if roomy else None) as name:
        yield Path(name)


def import_environment() -> dict[str, str]:
    """What a process of the tests needs to import what lies beside them."""
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(TESTS), *([inherited] if inherited else [])])}


def record(
    folder: Path,
    library: Path,
    *,
    seed: str,
    clients: int,
    writes: int,
    module: str = "agentmem.server",
    environment: Mapping[str, str] | None = None,
) -> Recording:
    """Runs a writer with clients that write ``writes`` times each, and keeps trace and ledger in the folder.

    Raises:
        TraceError: the trace does not make the file that the writer left.
    """
    folder.mkdir(parents=True)
    trace = folder / "trace"
    node = Node(
        module,
        folder / "writer",
        *("--embedder", "none", "--map-size-bytes", str(MAP_SIZE_BYTES)),
        environment={**import_environment(), **shim_environment(library, trace), **(environment or {})},
    )
    try:
        node.wait_ready()
        recording = Recording(trace, folder / "ledger.json", trace.stat().st_size)
        load = WritingClients(NAMESPACE, clients=clients, seed=seed, trace=trace, max_writes=writes)
        load.start(node.address)
        load.join()
        if load.errors():
            raise AssertionError(f"writes failed: {dict(load.errors())} {''.join(node.log)}")
        node.terminate()
    finally:
        node.stop()
    load.ledger.save(recording.ledger)
    if whole_file(read_trace(trace)) != (folder / "writer" / "store" / "data.mdb").read_bytes():
        raise TraceError("the trace does not make the file that the writer left")
    return recording


def keep(recording: Recording, seed: str) -> str:
    """Copies a recording out of the folder that will be removed; says how its images come back."""
    folder = Path(tempfile.mkdtemp(prefix="agentmem-lost-"))
    for path in (recording.trace, recording.ledger):
        shutil.copy(path, folder)
    return (
        f"to see image N again: echo N | python {TESTS / 'image_checker.py'} {folder / recording.trace.name} "
        f"{folder / recording.ledger.name} {recording.first_bytes} {seed} {folder / 'image'}"
    )


class _Checker:
    """A process that checks images, started again when an image was too much for it."""

    def __init__(self, recording: Recording, seed: str, folder: Path) -> None:
        self._command = [
            *(sys.executable, str(TESTS / "image_checker.py"), str(recording.trace), str(recording.ledger)),
            *(str(recording.first_bytes), seed, str(folder)),
        ]
        self._process: subprocess.Popen[str] | None = None

    def check(self, number: int) -> tuple[str, list[str]]:
        """The damage, and what the store does not hold."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = threading.Timer(IMAGE_TIMEOUT_S, process.kill)
        deadline.start()
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            deadline.cancel()
        if line:
            found = json.loads(line)
            return found["damage"], found["losses"]
        self.close()
        return f"its check took more than {IMAGE_TIMEOUT_S} s or crashed: {process.returncode}", []

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


def check_images(
    recording: Recording,
    folder: Path,
    *,
    images: int,
    seed: str,
    processes: int = 2,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Checked:
    """Builds and checks that many images of a recording."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(images):
        numbers.put(number)
    checked = Checked()
    changed = threading.Lock()

    def work(place: Path) -> None:
        checker = _Checker(recording, seed, place)
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                break
            found = checker.check(number)
            with changed:
                checked.add(number, *found)
            on_progress(1)
        checker.close()

    threads = [
        threading.Thread(target=work, args=(folder / f"images-{index}",)) for index in range(processes)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        # Interrupted: no other image is begun, and the folder may go once the last is checked.
        _empty(numbers)
        for thread in threads:
            thread.join()
    return checked


def _empty(numbers: queue.SimpleQueue[int]) -> None:
    with suppress(queue.Empty):
        while True:
            numbers.get_nowait()
