"""The follower: subscribes to the writer's log and applies it to the replica's own store.

One stream; the entries that came while others were synced to the disk are applied together, see frames.py.
The stream opens with the store's position; whatever went wrong before, a new stream from the position on disk
is right again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from itertools import groupby

import grpc

from agentmem.core.errors import AgentMemError, DataLoss, ResourceExhausted
from agentmem.core.log import MAX_EPOCHS
from agentmem.core.measurements import SIZE_BOUNDS, Histogram
from agentmem.core.shipping import AppliedEntry
from agentmem.core.signals import Signal
from agentmem.core.spans import Sampling
from agentmem.core.store import Store, WriteTransaction
from agentmem.core.trace_context import parse_traceparent
from agentmem.core.turns import Turns
from agentmem.replica.frames import Frame, Frames, Stream
from agentmem.replica.writer_link import WriterLink
from agentmem.v1 import replication_pb2

# The writer sends at least a heartbeat a second. A connection that is dead is noticed by keepalive, within
# seconds (serving.py). One that is not, but brings no frame for this long, is of a writer that hangs, or a
# large frame is on its way over a slow line: so the next stream gets twice the time.
SILENCE_TIMEOUT_S = 30.0
MAX_SILENCE_TIMEOUT_S = 960.0
MIN_RECONNECT_WAIT_S = 0.05
MAX_RECONNECT_WAIT_S = 2.0
# After so many attempts in a row that brought nothing, the other nodes are asked for the writer.
ASK_AROUND_FAILURES = 3
# A commit takes about a millisecond of work however little it has: under steady writes entries gather for it,
# unless somebody waits for them.
MIN_APPLY_INTERVAL_S = 0.015

_logger = logging.getLogger(__name__)


class RefusedError(Exception):
    """This writer cannot be followed: that would mix two histories. Another one may be."""


class SnapshotRequiredError(Exception):
    """The writer's log does not reach back to the store's position."""


class SupersededError(Exception):
    """A promotion left the newest entries of the store behind.

    Attributes:
        common_revision: what comes after it is not in the log that goes on.
    """

    def __init__(self, detail: str, common_revision: int) -> None:
        super().__init__(detail)
        self.common_revision = common_revision


class Follower:
    """Keeps the store up with the writer.

    Attributes:
        progress: notified when anything below changed.
        is_connected: whether a stream is open and the writer has spoken on it.
        applied_revision: the newest revision in the own store.
        head_revision: the newest revision the writer spoke of; None before it first did.
        streams: how many were begun.
        awaited_revision: up to here somebody waits to hear that this replica has it.
        is_superseded: a promotion seems to have left entries behind that the store has.
        apply_durations, apply_sizes: of frames of entries; see the table of metrics.
    """

    def __init__(
        self,
        store: Store,
        link: WriterLink,
        *,
        replica_id: str,
        address: str,
        on_applied: Callable[[Sequence[AppliedEntry]], None],
        on_awaited: Callable[[], None] = lambda: None,
        sampling: Sampling | None = None,
    ) -> None:
        """
        Args:
            on_applied: called with entries after they were applied, in another thread.
            on_awaited: called then if somebody waits for them.
            sampling: gets the spans of entries whose writes are recorded.
        """
        self.progress = Signal()
        self.is_connected = False
        self.applied_revision = store.position().revision
        self.head_revision: int | None = None
        self.awaited_revision = 0
        self.streams = 0
        self.is_superseded = False
        self.apply_durations = Histogram()
        self.apply_sizes = Histogram(SIZE_BOUNDS)
        self._store = store
        self._link = link
        self._replica_id = replica_id
        self._address = address
        self._on_applied = on_applied
        self._on_awaited = on_awaited
        self._sampling = Sampling() if sampling is None else sampling
        self._silence_timeout_s = SILENCE_TIMEOUT_S
        self._stream: Stream | None = None
        self._frames: Frames | None = None
        self._applied_at_s = 0.0
        self._turns = Turns()

    async def run(self) -> None:
        """Follows until cancelled.

        Raises:
            SnapshotRequiredError: it can go on from a snapshot only.
            SupersededError: so it can, and what it has behind a revision has to be set aside, as two streams
                in a row have said.
        """
        self._turns = Turns(asyncio.get_running_loop())
        wait_s = MIN_RECONNECT_WAIT_S
        said = ""
        failures = 0
        common_revision: int | None = None
        while True:
            began_s = time.monotonic()
            began_at_revision = self.applied_revision
            common_revision_before, common_revision = common_revision, None
            try:
                await self._follow()
                problem = "it ended the stream"
            except SupersededError as error:
                # To part with entries is for good, and what was asked or answered may have been damaged.
                if error.common_revision == common_revision_before:
                    raise
                common_revision = error.common_revision
                self.is_superseded = True
                problem = f"a promotion seems to have left entries behind: {error}"
            except grpc.aio.AioRpcError as error:
                problem = f"{error.code().name}: {error.details()}"
            except TimeoutError:
                problem = f"it was silent for {self._silence_timeout_s:.0f} s"
                self._silence_timeout_s = min(self._silence_timeout_s * 2, MAX_SILENCE_TIMEOUT_S)
            except RefusedError as error:
                problem = str(error)
            except DataLoss as error:
                # Damaged on the way, or a gap: nothing was applied, and the next stream starts over.
                problem = f"a frame was refused: {error.reason}: {error.message}"
            except ResourceExhausted as error:
                # No room here. Nothing was applied, and there may be room later.
                problem = f"a frame could not be applied: {error.reason}: {error.message}"
            if problem != said:
                # Once, not with every attempt.
                _logger.warning("the writer cannot be followed, trying on: %s", problem)
                said = problem
            if self.applied_revision > began_at_revision:
                # The stream brought something, and the next one may, too.
                wait_s, said, failures = MIN_RECONNECT_WAIT_S, "", 0
                continue
            if time.monotonic() > began_s + self._silence_timeout_s:
                wait_s, said = MIN_RECONNECT_WAIT_S, ""
            failures += 1
            if failures >= ASK_AROUND_FAILURES:
                # There may be another writer, or it may be elsewhere.
                await self._link.ask_around(self._address)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, MAX_RECONNECT_WAIT_S)

    async def _follow(self) -> None:
        self.streams += 1
        with self._store.read() as transaction:
            position = transaction.position
            epochs = list(transaction.epochs())[-MAX_EPOCHS:]
        stream = self._stream = self._link.replication.Subscribe(
            replication_pb2.SubscribeRequest(
                replica_id=self._replica_id,
                address=self._address,
                position=position.to_proto(),
                known_epoch=self._link.known_epoch,
                epochs=[
                    replication_pb2.EpochStart(epoch=epoch, first_revision=first) for epoch, first in epochs
                ],
            )
        )
        frames = self._frames = Frames(stream)
        is_first = True
        try:
            while True:
                began_s = time.monotonic()
                # The first frame is small on any line.
                timeout_s = SILENCE_TIMEOUT_S if is_first else self._silence_timeout_s
                lull_s = self._applied_at_s + MIN_APPLY_INTERVAL_S - time.monotonic()
                taken = await frames.take(timeout_s, lull_s)
                if not taken:
                    return
                for is_entries, run in groupby(taken, _has_entries):
                    if is_entries:
                        await self._apply([frame.entries for frame in run])
                        is_first = False
                    else:
                        for frame in run:
                            await self._process_frame(frame, is_first=is_first)
                            is_first = False
                waited_s = time.monotonic() - began_s
                self._silence_timeout_s = max(SILENCE_TIMEOUT_S, 2 * waited_s, self._silence_timeout_s / 2)
        except asyncio.CancelledError:
            # ``reconnect`` cancels the stream, not this task.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            frames.close()
            self._set_connected(False)

    def hurry(self) -> None:
        """Says that somebody waits for what comes next: it is applied at once."""
        if self._frames is not None:
            self._frames.hurry()

    def reconnect(self) -> None:
        """Ends the stream; the next one begins at once or after the usual wait."""
        if self._stream is not None:
            self._stream.cancel()

    async def _process_frame(self, frame: replication_pb2.SubscribeResponse, *, is_first: bool) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "heartbeat":
            await self._process_heartbeat(frame.heartbeat)
            # The writer sends later ones only when there are no entries left to be sent.
            if not is_first and frame.heartbeat.head_revision > self.applied_revision:
                raise DataLoss(
                    "LOG_GAP",
                    f"the writer has sent everything up to revision {frame.heartbeat.head_revision}, "
                    f"what came ends at {self.applied_revision}",
                )
        elif kind == "snapshot_required":
            raise SnapshotRequiredError(
                f"the writer can go on from revision {frame.snapshot_required.first_revision} only"
            )
        elif kind == "diverged" and frame.diverged.HasField("common_revision"):
            raise SupersededError(frame.diverged.detail, frame.diverged.common_revision)
        elif kind == "diverged":
            raise RefusedError(f"{frame.diverged.detail}; nothing here is given up")
        elif kind == "stale_epoch":
            raise RefusedError(
                f"it is of epoch {frame.stale_epoch.epoch}, and epoch {self._link.known_epoch} has begun"
            )
        else:
            # Of a later release, or damaged on the way.
            raise DataLoss("MALFORMED_FRAME", "it is of no kind that this release knows")

    async def _apply(self, frames: Sequence[replication_pb2.Entries]) -> None:
        """Applies frames of entries, in one commit if all of them fit."""
        self.head_revision = frames[-1].head_revision
        began_s = time.perf_counter()
        entries = [entry for frame in frames for entry in frame.entries]
        try:
            applied_revision = await asyncio.to_thread(self._commit, entries)
        except AgentMemError:
            # Nothing was applied. One of them is at fault, and what came before it is good.
            if len(frames) == 1:
                raise
            for frame in frames:
                await self._apply([frame])
            return
        self._applied_at_s = time.monotonic()
        self.apply_durations.record(time.perf_counter() - began_s)
        self.apply_sizes.record(len(entries))
        contexts = [
            (each.revision, parse_traceparent(each.traceparent)) for frame in frames for each in frame.traces
        ]
        traces = [(revision, context) for revision, context in contexts if context is not None]
        self._sampling.record_each("apply", traces, began_s)
        self.applied_revision = applied_revision
        if any(frame.is_awaited for frame in frames):
            self.awaited_revision = self.applied_revision
            self._on_awaited()
        self.progress.notify()

    def _commit(self, entries: Sequence[replication_pb2.ShippedEntry]) -> int:
        """Returns the revision that the store has then."""

        def apply(transaction: WriteTransaction) -> tuple[list[AppliedEntry], int]:
            applied = []
            for entry in entries:
                each = transaction.apply(entry)
                if each is not None:
                    applied.append(each)
                self._turns.give()
            return applied, transaction.revision

        applied, revision = self._store.commit(apply)
        # Here, and not on the event loop: the indexer looks at the store, too, and would read them there.
        self._on_applied(applied)
        return revision

    async def _process_heartbeat(self, heartbeat: replication_pb2.Heartbeat) -> None:
        position = self._store.position()
        if not position.revision and position.cluster_id != heartbeat.cluster_id:
            await asyncio.to_thread(
                self._store.commit,
                lambda transaction: transaction.adopt_cluster(heartbeat.cluster_id),
            )
        elif position.cluster_id != heartbeat.cluster_id:
            raise RefusedError(
                f"this store belongs to cluster {position.cluster_id.hex()}, "
                f"the writer to {heartbeat.cluster_id.hex()}"
            )
        if heartbeat.epoch < self._link.known_epoch:
            raise RefusedError(
                f"it is of epoch {heartbeat.epoch}, and epoch {self._link.known_epoch} has begun"
            )
        self._link.hear_of(heartbeat.cluster_id, heartbeat.epoch)
        self.head_revision = heartbeat.head_revision
        self.is_superseded = False
        self._set_connected(True)

    def _set_connected(self, connected: bool) -> None:
        if connected and not self.is_connected:
            _logger.info("following the writer from revision %d", self.applied_revision)
        self.is_connected = connected
        self.progress.notify()


def _has_entries(frame: Frame) -> bool:
    return frame.WhichOneof("frame") == "entries" and bool(frame.entries.entries)
