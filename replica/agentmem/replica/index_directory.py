"""The folder of the indexes of a replica: for one store, and for the release that made it.

<directory>/index.json   which store and which format the folder is for
<directory>/text/        see text.py
<directory>/segments/    see sealing.py
<directory>/facets.snapshot   see facet_snapshot.py
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from agentmem.core.data_directory import sync
from agentmem.replica.facet_snapshot import SNAPSHOT_FILE
from agentmem.replica.sealing import remove_path

# Raise it when text analysis, the schema or the meaning of a file changes.
INDEX_FORMAT = 3
IDENTITY_FILE = "index.json"
TEXT_FOLDER = "text"
SEGMENTS_FOLDER = "segments"

_logger = logging.getLogger(__name__)


class IndexDirectory:
    """One thread uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cluster_id = b""

    @property
    def text(self) -> Path:
        return self._path / TEXT_FOLDER

    @property
    def segments(self) -> Path:
        return self._path / SEGMENTS_FOLDER

    @property
    def facet_snapshot(self) -> Path:
        return self._path / SNAPSHOT_FILE

    def prepare(self, cluster_id: bytes) -> None:
        """Empties the folder, unless it was made for this store, by this release, and can be read.

        Args:
            cluster_id: of the store; empty when it holds nothing.
        """
        problem = self._problem(cluster_id)
        if not problem:
            self._cluster_id = cluster_id
            return
        if self._path.is_dir():
            stale = list(self._path.iterdir())
        else:
            stale = [self._path] if os.path.lexists(self._path) else []
        if cluster_id and stale:
            _logger.warning("the indexes in %s are built again from the store: %s", self._path, problem)
        for path in stale:
            remove_path(path)
        self._path.mkdir(parents=True, exist_ok=True)
        if cluster_id:
            self.claim(cluster_id)

    def claim(self, cluster_id: bytes) -> None:
        """Says, where it is not said yet, which store the folder is for."""
        if cluster_id == self._cluster_id:
            return
        path = self._path / IDENTITY_FILE
        path.write_text(_identity(cluster_id), encoding="utf-8")
        sync(path)
        sync(self._path)
        self._cluster_id = cluster_id

    def _problem(self, cluster_id: bytes) -> str:
        """Why the folder cannot be used as it is; empty when it can."""
        try:
            found = (self._path / IDENTITY_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return f"{IDENTITY_FILE} cannot be read: {error}"
        if not cluster_id or found != _identity(cluster_id):
            return "they were made for another store or by another release"
        for name in (TEXT_FOLDER, SEGMENTS_FOLDER):
            path = self._path / name
            if os.path.lexists(path) and not path.is_dir():
                return f"{name} is not a folder"
        return ""


def _identity(cluster_id: bytes) -> str:
    return json.dumps({"format": INDEX_FORMAT, "cluster_id": cluster_id.hex()})
