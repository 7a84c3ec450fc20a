"""All indexes of a replica on the writing side, and what each entry of the log does to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agentmem.core.embedding_spaces import after_step
from agentmem.core.errors import DataLoss
from agentmem.core.layout import NamespaceState
from agentmem.core.log import LogEntry, Operation
from agentmem.core.records import FloatVector, checked_vector, has_components
from agentmem.core.shipping import AppliedEntry, VectorsReplacedError
from agentmem.core.store import ReadTransaction, Store
from agentmem.core.turns import give_turn
from agentmem.replica.namespace_index import NamespaceIndex, memories_of
from agentmem.replica.planner import Costs
from agentmem.replica.sealing import Sealer
from agentmem.replica.sealing_schedule import SealingSchedule
from agentmem.replica.stored_vectors import coming_vector, vector_at
from agentmem.replica.text import TextIndex
from agentmem.v1 import storage_pb2

_KINDS = frozenset(Operation.Kind.values()) - {Operation.KIND_UNSPECIFIED}


class Indexes:
    """For the indexer's thread alone.

    Args:
        states: of the namespaces that there are at the start; their memories are put by ``put_stored``.
        revision, epoch: of the start.
        costs: of this machine.

    Attributes:
        text: of all namespaces.
        namespaces: by their names.
        changed: the names of those that are not yet in the view.
        incomplete: the names of those with embeddings that were replaced in the store before they came here:
            nothing may be published until their replacement has come, too.
        revision, epoch: of the newest entry.
    """

    def __init__(
        self,
        store: Store,
        text: TextIndex,
        sealer: Sealer,
        sealing: SealingSchedule,
        costs: Costs,
        *,
        states: Mapping[str, NamespaceState],
        revision: int,
        epoch: int,
    ) -> None:
        self.text = text
        self.revision, self.epoch = revision, epoch
        self._store = store
        self._sealer = sealer
        self._sealing = sealing
        self._costs = costs
        self.namespaces = {name: self._index(name, state) for name, state in states.items()}
        for namespace in self.namespaces.values():
            # Some did not change for long, but which is not in the records of what is live.
            namespace.changed_revision = revision
        self._names: dict[int, str] = {}  # of namespaces, by their numbers
        self.changed = set(states)
        self.incomplete: set[str] = set()

    def _index(self, name: str, state: NamespaceState) -> NamespaceIndex:
        return NamespaceIndex(name, state, memories_of(self._store), self._costs)

    def apply(self, transaction: ReadTransaction, entry: LogEntry, applied: AppliedEntry | None) -> None:
        """Does what the next entry of the log says.

        Args:
            applied: the same entry with what it wrote, if that is in memory still.

        Raises:
            DataLoss: the log or the store is damaged.
        """
        for change in entry.namespaces:
            self._change_namespace(transaction, change)
        for operation in entry.operations:
            self._apply(transaction, operation, applied)
            give_turn()
        self.revision, self.epoch = entry.revision, entry.epoch

    def _apply(
        self, transaction: ReadTransaction, operation: Operation, applied: AppliedEntry | None
    ) -> None:
        kind = operation.kind
        if kind not in _KINDS:
            raise DataLoss("UNKNOWN_OPERATION", f"the log has an operation of kind {kind}")
        namespace = self._numbered_namespace(transaction, operation.namespace_number)
        if kind == Operation.KIND_PUT:
            self._put_operation(transaction, namespace, operation, applied)
        elif kind == Operation.KIND_EMBED:
            vector = coming_vector(transaction, namespace.name, namespace.state, operation.ordinal)
            namespace.put_coming(operation.ordinal, vector)
        if kind in (Operation.KIND_EMBED, Operation.KIND_CLEAR):
            return
        revision = self.revision + 1  # of the entry that is being applied
        if namespace.changed_revision != revision:
            self.changed.add(namespace.name)
            self._sealing.note(namespace.name)
            namespace.changed_revision = revision
        for ordinal in (operation.replaced_ordinal, *operation.removed_ordinals):
            if ordinal and namespace.drop(ordinal):
                self.text.delete(ordinal)

    def _put_operation(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        operation: Operation,
        applied: AppliedEntry | None,
    ) -> None:
        """Adds what a PUT has written: from memory, or what the store has of it now."""
        ordinal, state = operation.ordinal, namespace.state
        written = None if applied is None else applied.written.get(ordinal)
        if written is not None:
            memory, encoded = written
            vector = checked_vector(encoded) if has_components(encoded) else None
        else:
            record = transaction.record(ordinal)
            if record is None:
                return  # removed since, as a later entry says
            memory = record.memory
            vector = self._stored_vector(transaction, namespace, ordinal, operation)
        if state.space:
            # The store may have the next embeddings already.
            memory.embedding_model = "" if vector is None else state.model
        namespace.put(ordinal, memory, vector)
        if state.coming_space:
            namespace.put_coming(ordinal, coming_vector(transaction, namespace.name, state, ordinal))
        self.text.add(state.number, ordinal, memory.content)

    def put_stored(
        self,
        transaction: ReadTransaction,
        ordinal: int,
        *,
        with_text: bool,
        with_vector: bool,
        with_facets: bool,
    ) -> None:
        """Adds what the store had at the start, to those indexes that lack it."""
        record = transaction.record(ordinal)
        if record is None:
            return  # removed since, as a later entry says
        memory = record.memory
        namespace = self._namespace(memory.namespace)
        vector = self._stored_vector(transaction, namespace, ordinal) if with_vector else None
        if with_facets:
            namespace.put(ordinal, memory, vector)
        elif vector is not None:
            namespace.add_vector(ordinal, vector)
        state = namespace.state
        if state.coming_space:
            namespace.put_coming(ordinal, coming_vector(transaction, namespace.name, state, ordinal))
        if with_text:
            self.text.add(state.number, ordinal, memory.content)

    def _stored_vector(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        ordinal: int,
        operation: Operation | None = None,
    ) -> FloatVector | None:
        try:
            return vector_at(transaction, namespace.name, namespace.state, ordinal, operation)
        except VectorsReplacedError:
            self.incomplete.add(namespace.name)
            return None

    def _change_namespace(self, transaction: ReadTransaction, change: storage_pb2.NamespaceChange) -> None:
        known = self.namespaces.get(change.name)
        if known is None:
            known = self._index(change.name, NamespaceState(number=change.number))
            self.namespaces[change.name] = known
        self.changed.add(change.name)
        if change.reembedding == storage_pb2.REEMBEDDING_STEP_SWITCHED:
            self._switch_space(transaction, known, change)
        elif change.reembedding:
            known.state = after_step(known.state, change)
            if known.state.coming_space and change.reembedding == storage_pb2.REEMBEDDING_STEP_BEGUN:
                known.begin_space()
            elif not known.state.coming_space:
                known.end_space()
        elif change.dimension:
            known.state = replace(known.state, dimension=change.dimension, model=change.embedding_model)

    def _switch_space(
        self,
        transaction: ReadTransaction,
        namespace: NamespaceIndex,
        change: storage_pb2.NamespaceChange,
    ) -> None:
        state = after_step(namespace.state, change)
        now = transaction.namespace(namespace.name)
        self.incomplete.discard(namespace.name)
        if now is not None and now.space != state.space:
            # The store has even later ones. Else, what is missing was removed, as a later entry says.
            for ordinal in namespace.missing_coming():
                if transaction.record_checksum(ordinal) is not None:
                    self.incomplete.add(namespace.name)
                    break
        self._sealer.remove(namespace.switch_space(state))
        namespace.changed_revision = self.revision + 1
        self._sealing.note(namespace.name)

    def _numbered_namespace(self, transaction: ReadTransaction, number: int) -> NamespaceIndex:
        """Raises DataLoss when the log has no beginning of it."""
        name = self._names.get(number)
        if name is None:
            name = self._names[number] = transaction.namespace_name(number)
        return self._namespace(name)

    def _namespace(self, name: str) -> NamespaceIndex:
        """Raises DataLoss when the log has no beginning of it."""
        known = self.namespaces.get(name)
        if known is None:
            raise DataLoss("CORRUPT_NAMESPACES", f"the log has no beginning of the namespace {name!r}")
        return known
