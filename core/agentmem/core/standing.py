"""What a node has to remember of the cluster beside its store: its role, and the newest epoch it heard of.

It is kept in ``standing.json`` in the data directory and not in the store: a snapshot of another node's store
takes the place of the own one, and must not bring that node's standing with it. A promotion is decided the
moment this file says so; whichever of the two programs is started on the folder then, the other takes over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from agentmem.core.data_directory import sync

Role = Literal["writer", "replica"]

# Nodes that were there last are kept; who was away for longer finds the writer by --writer.
MAX_PEERS = 100


class StandingError(Exception):
    """standing.json cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One node's standing.

    Attributes:
        role: what the node was last.
        cluster_id: in hexadecimal; empty before it belongs to a cluster.
        known_epoch: the highest epoch it heard of. Of a writer: its own.
        writer_id, writer_address: of the writer of that epoch; empty when not known, and of a writer.
        peers: addresses of the other nodes, those seen last at the end.
    """

    role: Role
    cluster_id: str = ""
    known_epoch: int = 1
    writer_id: str = ""
    writer_address: str = ""
    peers: tuple[str, ...] = ()

    @property
    def is_writer(self) -> bool:
        return self.role == "writer"


class StandingFile:
    """The file, and what it says. Not for several threads."""

    def __init__(self, folder: Path, role: Role, cluster_id: bytes, epoch: int) -> None:
        """Reads the file, or begins one for a node that has none yet, which has the role given.

        Args:
            cluster_id: of the store.
            epoch: of the store's newest entry.

        Raises:
            StandingError: the file cannot be read.
        """
        self.folder = folder
        self._path = folder / "standing.json"
        found = self._read()
        if found is None or (cluster_id and found.cluster_id != cluster_id.hex()):
            # Of the store that was here before, if any.
            found = Standing(role=role, cluster_id=cluster_id.hex(), known_epoch=epoch)
        self.now = replace(found, known_epoch=max(found.known_epoch, epoch, 1))

    def _read(self) -> Standing | None:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StandingError(f"{self._path} cannot be read: {error}") from error
        try:
            if document["role"] not in ("writer", "replica"):
                raise ValueError(f"role is {document['role']!r}")
            return Standing(**(document | {"peers": tuple(document["peers"])}))
        except (TypeError, KeyError, ValueError) as error:
            raise StandingError(f"{self._path} cannot be read: {error!r}") from error

    def become(self, standing: Standing) -> None:
        """Changes the standing; it is on disk when this returns."""
        if standing == self.now and self._path.exists():
            return
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(standing), indent=1) + "\n", encoding="utf-8")
        sync(temporary)
        os.replace(temporary, self._path)
        sync(self._path.parent)
        self.now = standing

    def meet(self, addresses: Iterable[str]) -> None:
        """Remembers the addresses of other nodes."""
        seen = dict.fromkeys(addresses)
        if not set(seen) <= set(self.now.peers):
            kept = [peer for peer in self.now.peers if peer not in seen]
            self.become(replace(self.now, peers=(*kept, *seen)[-MAX_PEERS:]))
