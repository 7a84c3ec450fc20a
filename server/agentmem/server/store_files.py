"""Stores as files: opened for reading by a process that does not own them; backups and what they become.

A backup is a folder:

    data.mdb       a compact copy of the store
    manifest.json  written last: format, cluster_id, epoch, revision, chain_hash, size_bytes, sha256
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from agentmem.core.data_directory import DataDirectory, sync
from agentmem.core.layout import FORMAT_VERSION
from agentmem.core.log import Position
from agentmem.core.settings import GIB
from agentmem.core.store import Store, StoreFormatError

MANIFEST_FILE = "manifest.json"
DATA_FILE = "data.mdb"
STORE_FOLDER = "store"
# Address space, no memory: room for what the owner adds while it is read.
READ_MAP_BYTES = 1024 * GIB


class BackupError(Exception):
    """A folder is not a good backup, or cannot become a store where it was asked for."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup should be."""

    format: int
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> Manifest | None:
        """None when the folder has none. Raises BackupError for one that cannot be read."""
        try:
            document = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            return cls(int(document["format"]), int(document["size_bytes"]), str(document["sha256"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{folder / MANIFEST_FILE} cannot be read: {error!r}") from error

    def problem(self, folder: Path) -> str:
        """Why the folder's data is not that of the manifest; "" when it is."""
        if self.format != FORMAT_VERSION:
            return f"the backup has store format {self.format}; this release has {FORMAT_VERSION}"
        file = folder / DATA_FILE
        size_bytes = file.stat().st_size
        if size_bytes != self.size_bytes:
            return f"{file} has {size_bytes} bytes; the manifest says {self.size_bytes}"
        if _sha256(file) != self.sha256:
            return f"{file} is not what was backed up: its SHA-256 is not that of the manifest"
        return ""


def _sha256(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def store_folder(path: Path) -> Path:
    """The store in a data directory, or the folder itself when it is a store or a backup.

    Raises:
        StoreFormatError: there is none.
    """
    for folder in (path / STORE_FOLDER, path):
        if (folder / DATA_FILE).is_file():
            return folder
    raise StoreFormatError(f"there is no store in {path}")


def open_read_only(path: Path) -> Store:
    """The store in a folder, also while another process writes to it.

    Raises:
        StoreFormatError: there is no store, or one of another format.
    """
    if not (path / DATA_FILE).is_file():
        raise StoreFormatError(f"there is no store in {path}: it has no {DATA_FILE}")
    return Store(path, map_size_bytes=READ_MAP_BYTES, max_map_size_bytes=READ_MAP_BYTES, read_only=True)


def restore(backup: Path, data_dir: Path, *, new_cluster: bool) -> Position:
    """Makes the store of a data directory from a backup; returns its position.

    Args:
        new_cluster: the store begins a cluster of its own.

    Raises:
        BackupError: the backup is not whole, or the data directory has a store; nothing was changed.
        DataDirectoryInUse: a process has it.
    """
    manifest = Manifest.of(backup)
    if manifest is None:
        raise BackupError(f"{backup} is not a whole backup: it has no {MANIFEST_FILE}")
    problem = manifest.problem(backup)
    if problem:
        raise BackupError(problem)
    directory = DataDirectory(data_dir)
    try:
        target = directory.path / STORE_FOLDER
        if target.exists():
            raise BackupError(f"{data_dir} has a store already: restore to another data directory")
        partial = directory.path / f"{STORE_FOLDER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        shutil.copyfile(backup / DATA_FILE, partial / DATA_FILE)
        position = _settle(partial, new_cluster)
        # What the indexes were made from is not what they would find.
        shutil.rmtree(directory.path / "indexes", ignore_errors=True)
        partial.rename(target)
        sync(directory.path)
        return position
    finally:
        directory.close()


def _settle(folder: Path, new_cluster: bool) -> Position:
    """Puts a copied store on disk for good; returns its position."""
    sync(folder / DATA_FILE)
    size_bytes = (folder / DATA_FILE).stat().st_size
    store = Store(folder, map_size_bytes=size_bytes + GIB, max_map_size_bytes=READ_MAP_BYTES)
    try:
        if new_cluster:
            store.commit(lambda transaction: transaction.leave_for_cluster(uuid.uuid4().bytes))
        return store.position()
    finally:
        store.close()
        sync(folder)
