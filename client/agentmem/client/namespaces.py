"""What a namespace keeps and holds, as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypedDict

from agentmem.client import values
from agentmem.client.acknowledgement import Acknowledged, acknowledged_from_proto
from agentmem.client.breakdown import (
    Breakdown,
    IndexStats,
    breakdown_from_proto,
    index_stats_from_proto,
)
from agentmem.client.errors import ServerError, invalid_field
from agentmem.v1 import reader_pb2, writer_pb2

_MAX_UINT32 = 2**32 - 1


class VectorPrecision(StrEnum):
    """How embeddings are stored. FLOAT16 takes half the space, at about three digits."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class NamespaceSettings:
    """What a namespace keeps.

    Attributes:
        max_versions: how many versions of a memory are kept, the newest included; 0 for all.
        max_version_age: how long a version is kept after it was replaced or deleted; for ever when None.
        vector_precision: of embeddings written from now on.
        embedder: the name of the one that makes the embeddings, or "none"; the server's first when "".
    """

    max_versions: int
    max_version_age: timedelta | None
    vector_precision: VectorPrecision
    embedder: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdatedSettings(NamespaceSettings):
    """All settings after a change, and the revision of the commit. Equal to the same NamespaceSettings."""

    revision: int
    epoch: int = 0
    acknowledged: Acknowledged | None = None

    def __eq__(self, other: object) -> bool:
        return values.equal_to_base(self, other, NamespaceSettings)

    __hash__ = NamespaceSettings.__hash__


class SettingsFields(TypedDict, total=False):
    """The keywords of ``update_namespace``, as in NamespaceSettings.

    max_versions: 1 to 1,000, or 0 for all.
    max_version_age: a timedelta, or seconds; None for ever.
    embedder: after the first embedding only ``reembed`` changes it.
    """

    max_versions: int
    max_version_age: timedelta | float | None
    vector_precision: VectorPrecision | str
    embedder: str


@dataclass(frozen=True)
class Reembedding:
    """How far the replacement of a namespace's embeddings is.

    Attributes:
        embedding_model, dimension: of the embeddings to come.
        done_versions: that have theirs, of all the ``versions`` that are stored.
    """

    embedding_model: str
    dimension: int
    done_versions: int
    versions: int


@dataclass(frozen=True)
class BegunReembedding:
    """What became of a wish for other embeddings.

    Attributes:
        embedding_model: of the present embeddings; "" when there are none.
        coming_model: of those that will take their place; "" when there is nothing to be done.
    """

    embedding_model: str
    coming_model: str
    revision: int
    epoch: int = 0
    acknowledged: Acknowledged | None = None


@dataclass(frozen=True)
class NamespaceStats:
    """What a namespace holds.

    Attributes:
        memories: live ones; what has expired counts until it is deleted.
        vectors: live memories with an embedding.
        dimension: of its embeddings; 0 before the first.
        embedding_model: the model that made them.
        versions: all that are stored, deletions included.
        pruned_versions: those that retention has removed.
        history_start_revision: retention forgot deleted memories: ``as_of`` answers from here on. 0: all is
            kept.
        reembedding: when its embeddings are being replaced.
    """

    memories: int
    vectors: int
    dimension: int
    embedding_model: str
    versions: int
    pruned_versions: int
    history_start_revision: int
    settings: NamespaceSettings
    reembedding: Reembedding | None = None


@dataclass(frozen=True)
class StoreStats:
    """What the store of the node that answered holds.

    Attributes:
        log_first_revision, log_last_revision: what the log reaches over; both 0 when it is empty.
        used_bytes: of the store's file, what is in use.
        file_bytes: how large the file is.
        max_bytes: how far it may grow.
    """

    namespaces: int
    log_first_revision: int
    log_last_revision: int
    log_bytes: int
    used_bytes: int
    file_bytes: int
    max_bytes: int


@dataclass(frozen=True)
class Stats:
    """What a namespace and the store hold; ``applied_revision`` as in every read.

    Attributes:
        breakdown, indexes: when they were asked for.
    """

    namespace: NamespaceStats
    store: StoreStats
    applied_revision: int
    epoch: int = 0
    breakdown: Breakdown | None = None
    indexes: IndexStats | None = None


_PRECISION_TO_PROTO = {
    VectorPrecision.FLOAT32: writer_pb2.VECTOR_PRECISION_FLOAT32,
    VectorPrecision.FLOAT16: writer_pb2.VECTOR_PRECISION_FLOAT16,
}
_PRECISION_FROM_PROTO = {number: precision for precision, number in _PRECISION_TO_PROTO.items()} | {
    # A namespace that was never written to.
    writer_pb2.VECTOR_PRECISION_UNSPECIFIED: VectorPrecision.FLOAT32
}


def settings_to_proto(given: Mapping[str, object]) -> writer_pb2.NamespaceSettings:
    """The message with the settings given."""
    if not given:
        raise invalid_field("settings", "must name at least one setting to change")
    message = writer_pb2.NamespaceSettings()
    for name, value in given.items():
        if name == "max_versions":
            message.max_versions = values.integer(name, value, low=0, high=_MAX_UINT32)
        elif name == "max_version_age":
            if value is not None:
                message.max_version_age.CopyFrom(values.duration(name, value))
        elif name == "vector_precision":
            message.vector_precision = _PRECISION_TO_PROTO[values.choice(name, value, VectorPrecision)]
        elif name == "embedder":
            message.embedder = values.text(name, value)
        else:
            raise invalid_field(
                name, f"is not a setting; there are {', '.join(SettingsFields.__annotations__)}"
            )
    return message


def settings_from_proto(message: writer_pb2.NamespaceSettings) -> NamespaceSettings:
    """The settings that a server sent."""
    precision = _PRECISION_FROM_PROTO.get(message.vector_precision)
    if precision is None:
        raise ServerError(
            f"the namespace has vector_precision {message.vector_precision}, which this client does not know"
        )
    age = values.to_timedelta(message.max_version_age) if message.HasField("max_version_age") else None
    return NamespaceSettings(message.max_versions, age, precision, message.embedder)


def updated_settings_from_proto(message: writer_pb2.UpdateNamespaceResponse) -> UpdatedSettings:
    """The answer to a change of settings."""
    return UpdatedSettings(
        **vars(settings_from_proto(message.settings)),
        revision=message.revision,
        epoch=message.epoch,
        acknowledged=acknowledged_from_proto(message),
    )


def begun_from_proto(message: writer_pb2.ReembedNamespaceResponse) -> BegunReembedding:
    """The answer to a wish for other embeddings."""
    return BegunReembedding(
        message.embedding_model,
        message.coming_model,
        message.revision,
        message.epoch,
        acknowledged_from_proto(message),
    )


def _reembedding_from_proto(space: reader_pb2.NamespaceStats) -> Reembedding | None:
    if not space.HasField("reembedding"):
        return None
    coming = space.reembedding
    return Reembedding(coming.embedding_model, coming.dimension, coming.done_versions, coming.versions)


def stats_from_proto(message: reader_pb2.GetStatsResponse) -> Stats:
    """What a node holds."""
    space, store = message.namespace, message.store
    return Stats(
        NamespaceStats(
            memories=space.memories,
            vectors=space.vectors,
            dimension=space.dimension,
            embedding_model=space.embedding_model,
            versions=space.versions,
            pruned_versions=space.pruned_versions,
            history_start_revision=space.history_start_revision,
            settings=settings_from_proto(space.settings),
            reembedding=_reembedding_from_proto(space),
        ),
        StoreStats(
            namespaces=store.namespaces,
            log_first_revision=store.log_first_revision,
            log_last_revision=store.log_last_revision,
            log_bytes=store.log_bytes,
            used_bytes=store.used_bytes,
            file_bytes=store.file_bytes,
            max_bytes=store.max_bytes,
        ),
        message.applied_revision,
        message.epoch,
        breakdown_from_proto(message.breakdown) if message.HasField("breakdown") else None,
        index_stats_from_proto(message.indexes) if message.HasField("indexes") else None,
    )
