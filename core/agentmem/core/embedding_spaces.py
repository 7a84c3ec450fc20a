"""How the embeddings of a namespace are replaced: what each step does to the namespace.

    BEGUN      a coming space; each version gets its vector in it, in the database that is not in use
    SWITCHED   the coming space is the one in use; the vectors before it are of no use any more
    CANCELLED  the vectors of the coming space are of no use any more
    CLEARED    what was of no use is gone, and the next coming space may be filled

A step may be begun before what was there is cleared; then nothing is written for it until it is.
"""

from __future__ import annotations

from dataclasses import replace

from agentmem.core.errors import DataLoss
from agentmem.core.layout import NamespaceState
from agentmem.v1 import storage_pb2


def after_step(state: NamespaceState, change: storage_pb2.NamespaceChange) -> NamespaceState:
    """The namespace after a step of the log. Raises DataLoss when the step cannot follow."""
    step = change.reembedding
    if step == storage_pb2.REEMBEDDING_STEP_BEGUN and not state.coming_space:
        number = state.spaces + 1
        return replace(
            state,
            spaces=number,
            coming_space=number,
            coming_dimension=change.dimension,
            coming_model=change.embedding_model,
        )
    if step == storage_pb2.REEMBEDDING_STEP_SWITCHED and state.is_filling:
        return _without_coming(
            replace(
                state,
                slot=1 - state.slot,
                space=state.coming_space,
                dimension=state.coming_dimension,
                model=state.coming_model,
                live_vectors=state.coming_vectors,
                is_clearing=True,
            )
        )
    if step == storage_pb2.REEMBEDDING_STEP_CANCELLED and state.coming_space:
        return _without_coming(replace(state, is_clearing=True))
    if step == storage_pb2.REEMBEDDING_STEP_CLEARED and state.is_clearing:
        return replace(state, is_clearing=False)
    raise DataLoss("CORRUPT_NAMESPACES", f"step {step} of namespace {change.name!r} cannot come now")


def _without_coming(state: NamespaceState) -> NamespaceState:
    return replace(
        state, coming_space=0, coming_dimension=0, coming_model="", coming_versions=0, coming_vectors=0
    )
