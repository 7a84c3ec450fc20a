"""Segments that the replicas of a host share: one of them builds, the others take hard links.

    <directory>/<cluster id>/LOCK                       held with flock by who builds
    <directory>/<cluster id>/<namespace number>-<space>-<last ordinal>-<digest>/
        the files of a segment (segment_files.py), linked; the sidecar is a copy

Who adopts a segment has it in its own folder, as if it had built it: the same files on the disk and in the
page cache. A replica removes its own links only. What has but the link in the directory is nobody's, and goes
when anybody looks. Whatever fails here costs a build of one's own and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from agentmem.core.data_directory import sync
from agentmem.core.errors import DataLoss
from agentmem.core.store import Store
from agentmem.replica.adoption import Coverage, ErasedRowsError, coverage, has_the_same_rows
from agentmem.replica.sealing_job import Job, Sealed
from agentmem.replica.segment import Segment
from agentmem.replica.segment_files import (
    ORDINALS_FILE,
    ROWS_FILE,
    SIDECAR_FILE,
    SegmentError,
    Sidecar,
    read_sidecar,
)

LOCK_FILE = "LOCK"
LINKING_SUFFIX = ".linking"
# How long a job waits while another replica builds, and for what the own log has not brought yet.
MAX_TURN_WAIT_S = 600.0
MAX_BEHIND_S = 5.0
_DIGEST_CHARACTERS = 16
_NAME = re.compile(r"([0-9]+)-([0-9]+)-([0-9]+)-[0-9a-f]+")

_logger = logging.getLogger(__name__)


class NotYetError(Exception):
    """The job is to be asked for again: another replica is at it, or is ahead of this one.

    Attributes:
        at_most_s: how long, counted from the first time, that is worth waiting for.
    """

    def __init__(self, at_most_s: float) -> None:
        super().__init__(f"to be tried again for {at_most_s:.0f} s")
        self.at_most_s = at_most_s


class SharedSegments:
    """One thread at a time uses it.

    Args:
        directory: on the file system of the indexes; made when it is missing.
        store: the replica's own.
    """

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self._store = store
        self._refused: set[str] = set()  # of what is there
        self._has_complained = False
        self._waiting_since_s: float | None = None

    def sealed(self, job: Job, target: Path, kind: str, build: Callable[[], Segment | None]) -> Sealed:
        """Adopts a segment that does what the job is for, or builds one and lets others adopt it.

        Args:
            target: the folder for it, which is not there.
            kind: of the index that is wanted.
            build: makes the segment there; None when no row is live.

        Raises:
            NotYetError: another replica is at it. What ``build`` raises.
        """
        now_s = time.monotonic()
        waited_s = 0.0 if self._waiting_since_s is None else now_s - self._waiting_since_s
        has_turn, adopted = False, None
        with contextlib.ExitStack() as turn:
            try:
                adopted = self.adopt(job, target, kind, waits=waited_s < MAX_BEHIND_S)
                if adopted is None:
                    turn.enter_context(self.turn())
                    has_turn = True
                    # What came just before the turn did.
                    adopted = self.adopt(job, target, kind, waits=False)
            except NotYetError as later:
                if waited_s < later.at_most_s:
                    self._waiting_since_s = now_s - waited_s
                    raise
            except OSError as error:
                self._complain(error)
            self._waiting_since_s = None
            if adopted is not None:
                return adopted
            segment = build()
            if has_turn and segment is not None:
                try:
                    self.publish(job, segment, target)
                except OSError as error:
                    self._complain(error)
            return Sealed(job, segment, job.replaced, job.last_ordinal)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The time in which this process alone builds.

        Raises:
            NotYetError: it is another one's.
            OSError: the directory cannot be used.
        """
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOCK_FILE).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotYetError(MAX_TURN_WAIT_S) from None
            for path in folder.iterdir():
                # What somebody who was killed left; only who has the turn adds anything.
                if (path.is_dir() and not (path / ROWS_FILE).exists()) or path.suffix == LINKING_SUFFIX:
                    shutil.rmtree(path, ignore_errors=True)
            yield

    def adopt(self, job: Job, target: Path, kind: str, *, waits: bool) -> Sealed | None:
        """Links a segment that does what the job is for into a folder of one's own; None when there is none.

        Args:
            target: the folder, which must not be there.
            kind: of the index that is wanted.
            waits: whether segments that are ahead of this replica are waited for.

        Raises:
            NotYetError: one is ahead.
            OSError: the directory cannot be used, or the disk is full.
        """
        self.sweep()
        ahead = False
        for folder, last_ordinal in self._candidates(job):
            if folder.name in self._refused:
                continue
            if last_ordinal > newest_ordinal(job):
                ahead = True
                continue
            sealed = self._adopt(job, folder, target, kind)
            if sealed is not None:
                return sealed
            self._refused.add(folder.name)
        if ahead and waits:
            raise NotYetError(MAX_BEHIND_S)
        return None

    def publish(self, job: Job, segment: Segment, folder: Path) -> None:
        """Lets others adopt a segment that was built in one's turn. Raises OSError."""
        text = _sidecar_text(replace(segment.sidecar, replaces=[]))
        digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        target = self._folder() / f"{job.number}-{job.space}-{int(segment.ordinals.max())}-{digest}"
        linking = target.with_name(target.name + LINKING_SUFFIX)
        linking.mkdir()
        try:
            for name in segment.sidecar.sha256:
                os.link(folder / name, linking / name)
            (linking / SIDECAR_FILE).write_text(text, encoding="utf-8")
            linking.rename(target)
        except OSError:
            shutil.rmtree(linking, ignore_errors=True)
            raise
        self._refused.add(target.name)  # it is here already

    def sweep(self) -> None:
        """Removes what no replica has in its own folder, of any cluster."""
        for folder in self._directory.glob("*/*-*-*-*"):
            try:
                is_nobodys = (folder / ROWS_FILE).stat().st_nlink == 1
            except OSError:
                continue  # it is on its way in or out
            if is_nobodys and _NAME.fullmatch(folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def _complain(self, error: OSError) -> None:
        """Logs, once, that the directory is of no use."""
        if not self._has_complained:
            self._has_complained = True
            _logger.warning(
                "segments are not shared, this replica builds its own: %s cannot be used: %s",
                self._directory,
                error.strerror or type(error).__name__,
            )

    def _folder(self) -> Path:
        return self._directory / self._store.position().cluster_id.hex()

    def _candidates(self, job: Job) -> list[tuple[Path, int]]:
        """What others built of the namespace, and the last ordinal of each; the furthest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder().iterdir():
                match = _NAME.fullmatch(path.name)
                if match and (int(match[1]), int(match[2])) == (job.number, job.space):
                    found.append((path, int(match[3])))
        self._refused.intersection_update({path.name for path, _ in found})
        return sorted(found, key=lambda each: each[1], reverse=True)

    def _adopt(self, job: Job, folder: Path, target: Path, kind: str) -> Sealed | None:
        building = target.with_name(target.name + LINKING_SUFFIX)
        building.mkdir()
        try:
            try:
                covered = self._link(job, folder, building, kind)
                if covered is None:
                    return None
                segment = Segment.open(building)
                if not has_the_same_rows(segment, covered, job, self._store):
                    return None
            except FileNotFoundError:
                return None  # removed meanwhile
            except DataLoss as error:  # of a version that is not served, and not needed to build
                _logger.warning("the shared segment %s cannot be compared: %s", folder, error)
                return None
            except (SegmentError, ErasedRowsError) as error:
                _logger.warning("the shared segment %s is removed: %s", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
                return None
            building.rename(target)
            sync(target.parent)
            segment.name = target.name
            return Sealed(job, segment, covered.replaced, covered.last_ordinal, is_adopted=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    @staticmethod
    def _link(job: Job, folder: Path, building: Path, kind: str) -> Coverage | None:
        """Links the files, with a sidecar for this replica; None when the segment is of no use.

        Raises:
            SegmentError: it has no sidecar.
            OSError: it cannot be linked.
        """
        try:
            sidecar = read_sidecar(folder)
            names = sorted(sidecar.sha256)
        except (ValueError, TypeError, AttributeError) as error:
            raise SegmentError(f"{folder} cannot be read: {error}") from error
        if (sidecar.index, sidecar.dimension, sidecar.space) != (kind, job.dimension, job.space):
            return None
        if any(Path(name).name != name for name in names):
            raise SegmentError(f"{folder} names files of others")
        for name in names:
            os.link(folder / name, building / name)
        ordinals = np.fromfile(building / ORDINALS_FILE, dtype="<u8")
        if not len(ordinals):
            raise SegmentError(f"{folder} has no rows")
        covered = coverage(job, ordinals)
        if covered is not None:
            sidecar = replace(sidecar, replaces=covered.replaced)
            (building / SIDECAR_FILE).write_text(_sidecar_text(sidecar), encoding="utf-8")
            sync(building / SIDECAR_FILE)
            sync(building)
        return covered


def newest_ordinal(job: Job) -> int:
    """The greatest that has a row in the view of the job."""
    parts = (*job.parts, *job.beside)
    return max((int(part.ordinals.max()) for part in parts if len(part.ordinals)), default=0)


def _sidecar_text(sidecar: Sidecar) -> str:
    return json.dumps(asdict(sidecar), indent=1)
