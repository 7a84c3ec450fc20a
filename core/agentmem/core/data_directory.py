"""The folder that one process owns: its lock, its identity, its whereabouts.

LOCK          held with flock while the process lives; the truth about whether it does
process.json  who serves here and where, written when ready and removed at a clean exit
store/        the LMDB environment
standing.json the node's role, and what it knows of the writer; see standing.py
set-aside/    what a promotion left behind; see set_aside.py
snapshot/     a copy of another node's store that is to take its place; ready when it has its data.mdb
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import TextIO

LOCK_ATTEMPTS = 10
LOCK_RETRY_S = 0.02
STORE_FILE = "data.mdb"
# In a snapshot: folders of the data directory that belong to the store it replaces, one a line.
DISCARDS_FILE = "discards"


class DataDirectoryInUse(Exception):
    """Another process owns the folder."""


class DataDirectory:
    """A data directory, owned by this process until ``close``."""

    def __init__(self, path: Path) -> None:
        """Creates and locks the folder. Raises DataDirectoryInUse when another process has it."""
        self.path = path.resolve()
        if not self.path.is_dir():
            self.path.mkdir(parents=True)
            sync(self.path.parent)
        self._lock: TextIO = open(self.path / "LOCK", "a")  # noqa: SIM115 - held until close
        if not self._acquired():
            self._lock.close()
            raise DataDirectoryInUse(f"another process is using the data directory {self.path}")
        # What an owner that was killed left behind.
        self._announcement.unlink(missing_ok=True)

    def _acquired(self) -> bool:
        for _ in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Whoever asks whether the folder is in use holds the lock for a moment, too.
                time.sleep(LOCK_RETRY_S)
            else:
                return True
        return False

    @property
    def _announcement(self) -> Path:
        return self.path / "process.json"

    @property
    def store_path(self) -> Path:
        return self.path / "store"

    @property
    def snapshot_path(self) -> Path:
        return self.path / "snapshot"

    def install_snapshot(self) -> None:
        """Puts a snapshot that is ready in the place of the store; whatever stops it, the next call goes on.

        The store must not be open.
        """
        replaced = self.path / "store.replaced"
        if (self.snapshot_path / STORE_FILE).is_file():
            if self.store_path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                self.store_path.rename(replaced)
            discards = self.snapshot_path / DISCARDS_FILE
            if discards.is_file():
                for name in discards.read_text().splitlines():
                    shutil.rmtree(self.path / name, ignore_errors=True)
                discards.unlink()
            self.snapshot_path.rename(self.store_path)
            sync(self.path)
        shutil.rmtree(self.snapshot_path, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)

    def announce(self, *, role: str, node_id: str, address: str, metrics_address: str) -> None:
        """Says that the process is ready, for whoever started it. ``metrics_address`` may be empty."""
        temporary = self.path / "process.json.tmp"
        temporary.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "role": role,
                    "node_id": node_id,
                    "address": address,
                    "metrics_address": metrics_address,
                    "start_time": time.time(),
                }
            )
        )
        temporary.replace(self._announcement)

    def close(self) -> None:
        self._announcement.unlink(missing_ok=True)
        self._lock.close()


def is_in_use(path: Path) -> bool:
    """Whether a process has this data directory now."""
    try:
        lock = open(path / "LOCK")  # noqa: SIM115 - closed below
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
