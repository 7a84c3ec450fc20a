"""The settings of a replica process."""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.core.config import SettingsError, check_positive, setting, split_address
from agentmem.core.settings import NodeSettings
from agentmem.replica.answer_cache import MAX_CACHED_BYTES
from agentmem.replica.indexer import DEFAULT_SEAL_ROWS
from agentmem.replica.sealing import VECTOR_INDEXES
from agentmem.replica.segment import has_faiss


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings(NodeSettings):
    """Checked when made. Raises SettingsError."""

    writer: str = setting("address of the writer to follow, or of any node of its cluster, host:port")
    listen: str = setting("address to serve on, host:port; 0 takes a free port", default="127.0.0.1:50052")
    seal_rows: int = setting(
        "vectors of a namespace that are searched one by one before they are sealed in a segment",
        default=DEFAULT_SEAL_ROWS,
    )
    vector_index: str = setting(
        "index of sealed vectors: ivf (inverted lists), hnsw (a graph), or annoy, which does without faiss; "
        "auto takes ivf where faiss is installed",
        default="auto",
        choices=VECTOR_INDEXES,
    )
    shared_segments: str = setting(
        "folder where the replicas of this host share sealed vectors, on the file system of the data "
        "directory; empty: each builds its own",
        default="",
    )
    search_threads: int = setting("searches that run at the same time", default=2)
    answer_cache_bytes: int = setting(
        "answers to searches that are kept for who asks the same again; 0: none", default=MAX_CACHED_BYTES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        split_address(self.writer, "--writer")
        check_positive(self, "seal_rows", "search_threads")
        if self.answer_cache_bytes < 0:
            raise SettingsError(f"--answer-cache-bytes must be at least 0, not {self.answer_cache_bytes}")
        if self.vector_index in ("hnsw", "ivf") and not has_faiss():
            raise SettingsError(
                f"--vector-index {self.vector_index} needs an extra: pip install 'agentmem-grpc[hnsw]'"
            )
