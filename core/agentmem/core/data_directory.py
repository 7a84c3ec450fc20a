"""The folder that one process owns: its lock, its identity, its whereabouts.

LOCK          held with flock while the process lives; the truth about whether it does
process.json  who serves here and where, written when ready and removed at a clean exit
store/        the LMDB environment
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import TextIO

LOCK_ATTEMPTS = 10
LOCK_RETRY_S = 0.02


class DataDirectoryInUse(Exception):
    """Another process owns the folder."""


class DataDirectory:
    """A data directory, owned by this process until ``close``."""

    def __init__(self, path: Path) -> None:
        """Creates and locks the folder. Raises DataDirectoryInUse when another process has it."""
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
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

    def announce(self, *, role: str, node_id: str, address: str) -> None:
        """Says that the process is ready, for whoever started it."""
        temporary = self.path / "process.json.tmp"
        temporary.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "role": role,
                    "node_id": node_id,
                    "address": address,
                    "start_time": time.time(),
                }
            )
        )
        temporary.replace(self._announcement)

    def close(self) -> None:
        self._announcement.unlink(missing_ok=True)
        self._lock.close()


def sync(path: Path) -> None:
    """Makes a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
