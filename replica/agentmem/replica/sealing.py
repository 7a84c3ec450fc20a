"""Turning tails into segments, in the background, one at a time.

The indexer decides what is merged and hands over an immutable view of it. A thread writes the rows to
``<name>.building``, has a low-priority process build the index there, renames the folder to ``<name>`` and
opens it with every check. Until the indexer takes the segment up, the rows stay in the tail; so whatever
fails on the way costs time and no answer. Where replicas share segments, one that another has built is
looked for first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from agentmem.core.data_directory import sync
from agentmem.core.measurements import Counter, Histogram
from agentmem.core.turns import Turns, give_turn
from agentmem.replica.ordinals import ordinal_array
from agentmem.replica.owner_order import owner_order
from agentmem.replica.sealing_job import Job, Sealed
from agentmem.replica.segment import KINDS, Segment, has_faiss
from agentmem.replica.segment_files import ORDINALS_FILE, ROWS_FILE, SegmentError, segment_folders
from agentmem.replica.shared_segments import NotYetError, SharedSegments

FIRST_RETRY_S = 1.0
MAX_RETRY_S = 60.0
# Between two looks at what another replica builds.
TURN_PAUSE_S = 0.1
# The copy of a chunk keeps all other threads waiting, for half a millisecond.
COPY_CHUNK_ROWS = 512
SHOWN_ERROR_CHARACTERS = 500
BUILDING_SUFFIX = ".building"
# A build takes from a second to some minutes.
BUILD_BOUNDS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

VECTOR_INDEXES = ("auto", *KINDS)
_logger = logging.getLogger(__name__)


def index_kind(asked: str) -> str:
    """The kind of index that segments get."""
    if asked != "auto":
        return asked
    return "ivf" if has_faiss() else "annoy"


class SealingFailed(Exception):
    """The builder process did not make a segment; says why."""


class BuildMetrics:
    """What is measured of jobs; see the table of metrics."""

    def __init__(self) -> None:
        self.durations = Histogram(BUILD_BOUNDS_S)
        self.outcomes = Counter()


class Sealer:
    """Runs jobs. All methods are for the indexer's thread alone.

    Args:
        folder: of all segments.
        on_done: called, in another thread, when ``collect`` has something to say.
        kind: of index that segments get, one of VECTOR_INDEXES.
        shared: what the replicas of the host share; None when they do not.
        turns: that the thread of a job gives to the event loop.

    Attributes:
        builds: what is measured of them.
    """

    def __init__(
        self,
        folder: Path,
        on_done: Callable[[], None],
        kind: str = "auto",
        shared: SharedSegments | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._folder = folder
        self._kind = kind
        self._shared = shared
        self._turns = Turns() if turns is None else turns
        self._on_done = on_done
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._outcome: Sealed | BaseException | None = None
        self._sequence = 0
        self._failures_in_row = 0
        self._retry_at_s = 0.0
        self.builds = BuildMetrics()

    def open_segments(self) -> dict[int, list[Segment]]:
        """The segments on disk that pass their checks, by the number of their namespace, oldest first.

        What fails, was replaced, or was never finished is deleted.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        opened: dict[int, list[Segment]] = {}
        replaced: set[str] = set()
        for folder in segment_folders(self._folder):
            number, sequence = (int(part) for part in folder.name.split("-"))
            self._sequence = max(self._sequence, sequence)
            if folder.name in replaced:
                continue
            try:
                segment = Segment.open(folder)
            except SegmentError as error:
                _logger.warning(
                    "segment %s is deleted and built again from the store: %s", folder.name, error
                )
                continue
            replaced.update(segment.sidecar.replaces)
            opened.setdefault(number, []).insert(0, segment)
        kept = {segment.name for segments in opened.values() for segment in segments}
        for path in self._folder.iterdir():
            if path.name not in kept:
                with contextlib.suppress(OSError):  # what stays costs space and nothing else
                    remove_path(path)
        if self._shared is not None:
            self._shared.sweep()
        return opened

    @property
    def is_busy(self) -> bool:
        return self._thread is not None

    def wait_s(self) -> float:
        """How long no job may be started because one has failed, or waits for another replica."""
        return max(0.0, self._retry_at_s - time.monotonic())

    def start(self, job: Job) -> None:
        """Begins a job; none may be running."""
        self._sequence += 1
        name = f"{job.number}-{self._sequence}"
        self._thread = threading.Thread(target=self._run, args=(job, name), name="sealer", daemon=True)
        self._thread.start()

    def collect(self) -> Sealed | None:
        """The finished job, once.

        One that failed, which is logged, or that waits for another replica may be begun again
        after ``wait_s``.
        """
        outcome = self._outcome
        if self._thread is None or outcome is None:
            return None
        self._thread.join()
        self._thread, self._outcome = None, None
        if isinstance(outcome, NotYetError):
            self._retry_at_s = time.monotonic() + TURN_PAUSE_S
            return None
        if isinstance(outcome, BaseException):
            delay_s = min(FIRST_RETRY_S * 2**self._failures_in_row, MAX_RETRY_S)
            self._failures_in_row += 1
            self._retry_at_s = time.monotonic() + delay_s
            _logger.error("sealing vectors failed, next try in %.0f s: %s", delay_s, outcome)
            return None
        self._failures_in_row = 0
        return outcome

    def remove(self, names: list[str]) -> None:
        """Deletes the files of segments; who has them open keeps them until done."""
        for name in names:
            shutil.rmtree(self._folder / name)
        if self._shared is not None and names:
            self._shared.sweep()

    def stop(self) -> None:
        """Ends a running job and waits for it."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
        if self._thread is not None:
            self._thread.join()

    def _run(self, job: Job, name: str) -> None:
        self._turns.begin()
        began_s = time.monotonic()
        try:
            sealed = self._outcome = self._seal(job, name)
            self.builds.outcomes.add("adopted" if sealed.is_adopted else "ok")
            if not sealed.is_adopted:
                self.builds.durations.record(time.monotonic() - began_s)
        except NotYetError as later:
            self._outcome = later
        except BaseException as error:  # told of by collect()
            self._outcome = error
            self.builds.outcomes.add("failed")
        self._on_done()

    def _seal(self, job: Job, name: str) -> Sealed:
        if self._shared is not None:
            kind = index_kind(self._kind)
            return self._shared.sealed(job, self._folder / name, kind, lambda: self._built(job, name))
        return Sealed(job, self._built(job, name), job.replaced, job.last_ordinal)

    def _built(self, job: Job, name: str) -> Segment | None:
        building = self._folder / (name + BUILDING_SUFFIX)
        try:
            building.mkdir()
            count = _write_rows(job, building)
            if not count:
                return None
            self._build(job, building, index_kind(self._kind))
            target = building.rename(self._folder / name)
            sync(self._folder)
            try:
                return Segment.open(target)
            except SegmentError:
                shutil.rmtree(target)
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _build(self, job: Job, folder: Path, kind: str) -> None:
        command = [sys.executable, "-m", "agentmem.replica.segment_builder", str(folder)]
        command += ["--dimension", str(job.dimension), "--space", str(job.space), "--kind", kind]
        command += ["--replaces", *job.replaced]
        # The builder has to find the same code as this process, however that was started.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            self._process = process
            if self._stopping.is_set():  # stop() has not seen this process
                process.terminate()
            _, complaint = process.communicate()
            self._process = None
        if process.returncode:
            said = complaint.decode(errors="replace").strip()[-SHOWN_ERROR_CHARACTERS:]
            raise SealingFailed(f"the segment builder ended with status {process.returncode}: {said}")


def remove_path(path: Path) -> None:
    """Deletes a folder with all that is in it, a file, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write_rows(job: Job, folder: Path) -> int:
    """Writes the live rows of all parts, those of one owner side by side; returns how many."""
    live = ordinal_array(job.live)
    kept = [np.flatnonzero(np.isin(part.ordinals, live, assume_unique=True)) for part in job.parts]
    ordinals = np.concatenate([part.ordinals[places] for part, places in zip(job.parts, kept, strict=True)])
    count = len(ordinals)
    if not count:
        return 0
    order = owner_order(job.facets, ordinals)
    ordinals[order].astype("<u8").tofile(folder / ORDINALS_FILE)
    # Not through a map of the file: to flush one keeps Python's lock for as long as the disk takes.
    begins = np.cumsum([0, *(len(places) for places in kept[:-1])])
    with open(folder / ROWS_FILE, "wb") as file:
        for start in range(0, count, COPY_CHUNK_ROWS):
            give_turn()
            chunk = order[start : start + COPY_CHUNK_ROWS]
            rows = np.empty((len(chunk), job.dimension), dtype="<f4")
            of_part = begins.searchsorted(chunk, side="right") - 1
            for number, part in enumerate(job.parts):
                here = np.flatnonzero(of_part == number)
                rows[here] = part.rows[kept[number][chunk[here] - begins[number]]]
            file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())
    return count
