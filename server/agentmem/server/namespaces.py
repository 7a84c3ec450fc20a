"""UpdateNamespace: what a namespace keeps."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from agentmem.core.embedders import Embedders
from agentmem.core.errors import FailedPrecondition, InvalidArgument, invalid_field
from agentmem.core.layout import NamespaceState
from agentmem.core.store import WriteTransaction
from agentmem.core.times import duration_us
from agentmem.core.validation import MAX_TTL_US, MAX_VERSIONS
from agentmem.server.requests import RequestKey, first_outcome, outcome_of
from agentmem.v1 import writer_pb2

SETTINGS_FIELDS = tuple(writer_pb2.NamespaceSettings.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True, slots=True)
class UpdateNamespace:
    """Sets the masked settings of a namespace, which begins with it if need be."""

    namespace: str
    settings: writer_pb2.NamespaceSettings
    fields: Set[str]
    request: RequestKey | None
    # Of the embedder that is asked for.
    model: str = ""
    size_bytes: int = 0

    def run(self, transaction: WriteTransaction, time_us: int) -> writer_pb2.UpdateNamespaceResponse:
        first = first_outcome(self.request, transaction, time_us)
        if first:
            return writer_pb2.UpdateNamespaceResponse.FromString(first.response)
        space = transaction.namespace(self.namespace) or NamespaceState(number=0)
        if "embedder" in self.fields:
            self._check_embedder(space)
        settings = space.settings()
        for field in self.fields:
            settings.ClearField(field)
        wanted = writer_pb2.NamespaceSettings()
        wanted.CopyFrom(self.settings)
        for field in SETTINGS_FIELDS:
            if field not in self.fields:
                wanted.ClearField(field)
        settings.MergeFrom(wanted)
        settings.vector_precision = settings.vector_precision or writer_pb2.VECTOR_PRECISION_FLOAT32
        response = writer_pb2.UpdateNamespaceResponse(
            settings=settings, revision=transaction.revision + 1, epoch=transaction.position.epoch
        )
        transaction.append(
            (),
            time_us,
            settings={self.namespace: settings},
            request=outcome_of(self.request, response),
        )
        return response

    def _check_embedder(self, space: NamespaceState) -> None:
        """Raises FailedPrecondition when the namespace has embeddings of another embedder, or gets them."""
        known = space.coming_model or space.model
        if (space.dimension or space.coming_space) and known != self.model:
            raise FailedPrecondition(
                "EMBEDDINGS_EXIST",
                f"settings.embedder: the embeddings of {self.namespace!r} are of {known!r}: "
                "ReembedNamespace (agentmem reembed) replaces them",
                field="settings.embedder",
                namespace_model=known,
            )


def checked_fields(request: writer_pb2.UpdateNamespaceRequest, embedders: Embedders) -> frozenset[str]:
    """The fields of the mask, their values checked. Raises InvalidArgument."""
    paths, settings = request.update_mask.paths, request.settings
    if not paths:
        raise invalid_field("update_mask", "must name the settings to change")
    for path in paths:
        if path not in SETTINGS_FIELDS:
            raise InvalidArgument(
                "INVALID_FIELD",
                f"update_mask: there is no setting {path!r}; there are {', '.join(SETTINGS_FIELDS)}",
                field="update_mask",
            )
    if settings.max_versions > MAX_VERSIONS:
        raise invalid_field("settings.max_versions", f"must be 1 to {MAX_VERSIONS}, or 0 for all")
    if settings.HasField("max_version_age") and not (0 < duration_us(settings.max_version_age) <= MAX_TTL_US):
        raise invalid_field("settings.max_version_age", "must be above 0 and at most 100 years")
    if settings.vector_precision not in writer_pb2.VectorPrecision.values():
        raise invalid_field("settings.vector_precision", f"has no meaning for {settings.vector_precision}")
    if settings.embedder:
        embedders.check_name(settings.embedder, "settings.embedder")
    return frozenset(paths)
