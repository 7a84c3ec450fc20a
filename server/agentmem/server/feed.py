"""The log for replicas: each subscriber's stream reads it from its own cursor.

There is no queue for a subscriber. A commit sets a signal; the stream that waits on it reads on from its
cursor, in frames of about ``max_frame_bytes``, and gRPC's flow control holds it back when the replica is
slow. It reads the newest entries from memory, where they are for all subscribers as they go over the wire,
and what is older from the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TypeAlias

from agentmem.core import wire
from agentmem.core.errors import FailedPrecondition, NotFound, Unavailable, invalid_field
from agentmem.core.log import FIRST_EPOCH, MAX_EPOCHS, Position, decode_entry
from agentmem.core.shipping import VectorsReplacedError
from agentmem.core.signals import Signal
from agentmem.core.spans import Sampling, ShippedTraces
from agentmem.core.store import ReadTransaction, Store
from agentmem.core.trace_context import TraceContext
from agentmem.core.validation import check_id
from agentmem.server.membership import Member, Membership
from agentmem.server.snapshots import Snapshots
from agentmem.v1 import cluster_pb2, replication_pb2, replication_pb2_grpc

HEARTBEAT_INTERVAL_S = 1.0
_FRAME = replication_pb2.SubscribeResponse.ENTRIES_FIELD_NUMBER
_ENTRIES = replication_pb2.Entries.ENTRIES_FIELD_NUMBER

_logger = logging.getLogger(__name__)

# A SubscribeResponse, or one that is serialized.
Frame: TypeAlias = replication_pb2.SubscribeResponse | bytes


class ReplicationService(replication_pb2_grpc.ReplicationServiceServicer):
    """The writer's side of replication."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        snapshots: Snapshots,
        *,
        max_frame_bytes: int,
        hear_of: Callable[[int], bool],
        traces: ShippedTraces,
        sampling: Sampling,
    ) -> None:
        """``hear_of`` is told each epoch that a replica knows; it says whether this is the writer no more.

        ``traces`` are shipped with their entries.
        """
        self._hear_of = hear_of
        self._traces = traces
        self._sampling = sampling
        self.committed = Signal()
        self._snapshots = snapshots
        self._store = store
        self._membership = membership
        self._max_frame_bytes = max_frame_bytes
        self._closing = False

    async def Subscribe(  # type: ignore[override]
        self, request: replication_pb2.SubscribeRequest, context: object
    ) -> AsyncIterator[Frame]:
        check_id(request.replica_id, "replica_id")
        check_id(request.address, "address")
        with self._store.read() as transaction:
            heartbeat = _heartbeat(transaction.position)
            divergence = _divergence(transaction, request)
            first_revision = transaction.first_log_revision
        if self._hear_of(max(request.known_epoch, request.position.epoch)):
            stale = replication_pb2.StaleEpoch(epoch=heartbeat.epoch)
            yield replication_pb2.SubscribeResponse(stale_epoch=stale)
            return
        if divergence is not None:
            _logger.warning("%s is refused: %s", request.replica_id, divergence.detail)
            yield replication_pb2.SubscribeResponse(diverged=divergence)
            return
        if first_revision > max(1, request.position.revision):
            required = replication_pb2.SnapshotRequired(first_revision=first_revision)
            yield replication_pb2.SubscribeResponse(snapshot_required=required)
            return
        member = self._membership.join(request.replica_id, request.address)
        _logger.info("%s subscribed behind revision %d", request.replica_id, request.position.revision)
        try:
            yield replication_pb2.SubscribeResponse(heartbeat=heartbeat)
            async for frame in self._frames(request.position.revision, member):
                yield frame
        finally:
            self._membership.leave(member)
            _logger.info("%s is no longer subscribed", request.replica_id)

    async def _frames(self, cursor: int, member: Member) -> AsyncIterator[Frame]:
        began_at_revision, is_level = cursor, False
        heartbeat_due_s = time.monotonic() + HEARTBEAT_INTERVAL_S
        while not self._closing and self._membership.has(member):
            seen = self.committed.count
            shipped, head = self._store.recent.after(cursor, self._max_frame_bytes)
            if not shipped:
                with self._store.read() as transaction:
                    position = transaction.position
                    head = position.revision
                    trimmed = head > cursor and transaction.first_log_revision > cursor + 1
                    shipped, replaced = self._shipped(transaction, cursor) if head > cursor else ([], None)
                if trimmed:
                    return  # the replica comes again, and is told
                if replaced is not None:
                    _logger.info("entry %d cannot be shipped any more: %s", cursor + 1, replaced)
                    required = replication_pb2.SnapshotRequired(first_revision=cursor + 2)
                    yield replication_pb2.SubscribeResponse(snapshot_required=required)
                    return
            if shipped:
                # Entries are without gaps, so counting them is knowing where the last one stands.
                traces = self._traces.between(cursor, cursor + len(shipped))
                cursor += len(shipped)
                heartbeat_due_s = time.monotonic() + HEARTBEAT_INTERVAL_S
                began_s = time.perf_counter()
                yield self._frame(shipped, head, traces)
                self._sampling.record_each("ship", traces, began_s)
                if cursor < head:
                    continue
            if not is_level:
                is_level = True
                self._snapshots.came_level(began_at_revision)
            wait_s = heartbeat_due_s - time.monotonic()
            if wait_s <= 0 and shipped:
                continue  # to send it took long: there may be more
            if wait_s <= 0:
                heartbeat_due_s += HEARTBEAT_INTERVAL_S
                yield replication_pb2.SubscribeResponse(heartbeat=_heartbeat(position))
            else:
                await self.committed.wait_beyond(seen, wait_s)

    def _shipped(
        self, transaction: ReadTransaction, cursor: int
    ) -> tuple[list[bytes], VectorsReplacedError | None]:
        """The next entries, or why there are none."""
        try:
            shipped = transaction.shipped_entries(cursor, self._max_frame_bytes)
        except VectorsReplacedError as error:
            return [], error
        return [entry.SerializeToString() for entry in shipped], None

    def _frame(
        self, shipped: Sequence[bytes], head: int, traces: Iterable[tuple[int, TraceContext]]
    ) -> bytes:
        """A SubscribeResponse with Entries, put together from entries that are serialized."""
        rest = replication_pb2.Entries(
            head_revision=head,
            is_awaited=self._membership.is_awaited(),
            traces=[
                replication_pb2.EntryTrace(revision=revision, traceparent=trace.traceparent)
                for revision, trace in traces
            ],
        )
        fields = [part for entry in shipped for part in (wire.head(_ENTRIES, len(entry)), entry)]
        return wire.delimited(_FRAME, b"".join(fields) + rest.SerializeToString())

    async def ReportProgress(
        self, request: replication_pb2.ReportProgressRequest, context: object
    ) -> replication_pb2.ReportProgressResponse:
        check_id(request.replica_id, "replica_id")
        if request.state not in cluster_pb2.NodeState.values() or not request.state:
            raise invalid_field("state", f"has no meaning for {request.state}")
        if self._hear_of(request.known_epoch):
            raise FailedPrecondition("NOT_WRITER", "this node is the writer no more")
        if not self._membership.report(request):
            raise NotFound("NOT_SUBSCRIBED", f"replica {request.replica_id!r} is not subscribed")
        # Of the store and now: what was acknowledged before the call came is on disk, and so up to here.
        position = self._store.position()
        return replication_pb2.ReportProgressResponse(epoch=position.epoch, head_revision=position.revision)

    async def FetchSnapshot(
        self, request: replication_pb2.FetchSnapshotRequest, context: object
    ) -> AsyncIterator[replication_pb2.FetchSnapshotResponse]:
        async for frame in self._snapshots.fetch(request):
            if self._closing:
                raise Unavailable("SHUTTING_DOWN", "the writer is shutting down")
            yield frame

    def close(self) -> None:
        """Ends the streams."""
        self._closing = True
        self.committed.notify()


def _heartbeat(position: Position) -> replication_pb2.Heartbeat:
    return replication_pb2.Heartbeat(
        cluster_id=position.cluster_id,
        epoch=position.epoch,
        head_revision=position.revision,
        time_us=time.time_ns() // 1000,
    )


def _divergence(
    transaction: ReadTransaction, request: replication_pb2.SubscribeRequest
) -> replication_pb2.Diverged | None:
    """Why a replica at the position cannot follow this log; None when it can."""
    own, position = transaction.position, request.position
    if not position.revision:
        return None
    if position.cluster_id != own.cluster_id:
        raise FailedPrecondition(
            "CLUSTER_MISMATCH",
            f"the replica belongs to cluster {position.cluster_id.hex()}, this is {own.cluster_id.hex()}",
        )
    if position.epoch > FIRST_EPOCH and (not request.epochs or request.epochs[-1].epoch != position.epoch):
        raise invalid_field("epochs", f"must end with that of the position, {position.epoch}")
    theirs = [(each.epoch, each.first_revision) for each in request.epochs]
    common_revision = _common_revision(list(transaction.epochs()), theirs)
    if own.epoch > position.epoch and common_revision is not None and position.revision > common_revision:
        return replication_pb2.Diverged(
            detail=f"a promotion went on from revision {common_revision}, the replica is at "
            f"{position.revision} of epoch {position.epoch}",
            common_revision=common_revision,
        )
    if position.revision > own.revision:
        return replication_pb2.Diverged(
            detail=f"the replica is at revision {position.revision}, the writer only at {own.revision}"
        )
    value = transaction.log_value(position.revision)
    if value is not None and decode_entry(value, position.revision)[1] != position.chain_hash:
        return replication_pb2.Diverged(
            detail=f"the replica's log differs from the writer's at or before revision {position.revision}"
        )
    return None


def _common_revision(own: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> int | None:
    """The last revision that two logs have in common, by their epochs and where these begin.

    None when no epoch of the own log says that they part: it is not known, or the replica is only behind.
    """
    if len(theirs) == MAX_EPOCHS:
        # There may be earlier ones.
        own = [each for each in own if each[0] >= theirs[0][0]]
    for ours, other in zip_longest(own, theirs):
        if ours is None:
            return None
        if ours != other:
            return min(each[1] for each in (ours, other) if each is not None) - 1
    return None
