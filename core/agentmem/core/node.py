"""What every server process opens first and closes last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentmem.core.data_directory import DataDirectory
from agentmem.core.settings import NodeSettings
from agentmem.core.store import Store


@contextmanager
def open_node(settings: NodeSettings) -> Iterator[tuple[DataDirectory, Store]]:
    """The data directory, locked, and the store in it.

    Raises:
        DataDirectoryInUse, StoreFormatError: nothing was changed.
    """
    directory = DataDirectory(settings.data_dir)
    try:
        directory.install_snapshot()
        store = Store(
            directory.store_path,
            map_size_bytes=settings.map_size_bytes,
            max_map_size_bytes=settings.max_map_size_bytes,
            memory_cache_bytes=settings.memory_cache_bytes,
        )
        try:
            yield directory, store
        finally:
            store.close()
    finally:
        directory.close()
