"""Stores as files: opened for reading by a process that does not own them, and the manifest of a backup.

A backup is a folder:

    data.mdb       a compact copy of the store
    manifest.json  written last: format, cluster_id, epoch, revision, chain_hash, size_bytes, sha256
"""

from __future__ import annotations

from pathlib import Path

from agentmem.core.store import Store, StoreFormatError

MANIFEST_FILE = "manifest.json"
DATA_FILE = "data.mdb"
# Address space, no memory: room for what the owner adds while it is read.
READ_MAP_BYTES = 1024**4


def open_read_only(path: Path) -> Store:
    """The store in a folder, also while another process writes to it.

    Raises:
        StoreFormatError: there is no store, or one of another format.
    """
    if not (path / DATA_FILE).is_file():
        raise StoreFormatError(f"there is no store in {path}: it has no {DATA_FILE}")
    return Store(path, map_size_bytes=READ_MAP_BYTES, max_map_size_bytes=READ_MAP_BYTES, read_only=True)
