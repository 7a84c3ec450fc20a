"""The calls of one generator process: one event loop, raw bytes, and an honest clock.

A call has three times: when it was due, when it was sent, and when it ended. When the server stalls, the
workers wait and the calls after it are sent late; from when they were sent they look fast (the omission that
wrk2 calls coordinated), from when they were due they do not. Both are recorded.
"""

import asyncio
import selectors
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile
from typing import Any

import grpc
import grpc.aio

from agentmem.bench.load.connections import open_channels
from agentmem.bench.load.descriptors import find_method
from agentmem.bench.load.options import Options
from agentmem.bench.load.payloads import MAX_BUILT_CALLS, CallMetadata, Metadata, Payloads
from agentmem.bench.load.recordings import NOT_DUE, OK, STATUS_NUMBERS, STATUSES, Recording
from agentmem.bench.load.schedules import due_times_ns

# With async: how many calls of a process may wait for their answer. Then the next waits; its lateness counts.
MAX_ASYNC_CALLS = 10_000
# The numbers of the calls of the warm-up, so that they name nothing that calls of the run name.
FIRST_WARMUP_NUMBER = 1_000_000_000
CANCELED = STATUS_NUMBERS["CANCELLED"]

Exchange = Callable[[list[bytes], Metadata], Awaitable[None]]
Turn = tuple[int, int]


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes up on the microsecond.

    epoll's timeout is in whole milliseconds, so the usual loop sends each call up to one late. The loop
    watches few descriptors (the connections are gRPC's own), so select's limit of 1024 is far.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@dataclass(frozen=True)
class Part:
    """Which of the processes this is: it takes each `of`-th request, worker and connection."""

    index: int
    of: int

    def share(self, total: int) -> int:
        return len(range(self.index, total, self.of))


@dataclass(frozen=True)
class Timing:
    """How long a run is at most (0: until it has made its calls), and what then becomes of calls under way:
    "close" cancels and counts them, "wait" lets them end, "ignore" cancels and forgets them."""

    length_ns: int
    stop: str


class Generator:
    """Raises LoadError when the host cannot be reached or the data does not fit the method."""

    def __init__(self, options: Options, files: bytes, part: Part) -> None:
        self.options = options
        self.part = part
        self._interrupted = False
        self._method = find_method(files, options.call)
        seed = options.seed * options.processes + part.index
        self.payloads = Payloads(self._method, options.data, options.binary_data, seed)
        self.metadata = CallMetadata(self._method, options.metadata, seed)
        self._channels: list[grpc.aio.Channel] = []
        self.endpoints: list[int] = []
        self.exchanges: list[Exchange] = []
        if not options.binary_data:
            self.payloads.build(self._numbers(0, min(options.total or MAX_BUILT_CALLS, MAX_BUILT_CALLS)))

    def _numbers(self, first: int, total: int | None) -> Iterator[int]:
        """The numbers of this process' requests."""
        numbers = count(first + self.part.index, self.part.of)
        return numbers if total is None else islice(numbers, self.part.share(total))

    async def connect(self) -> None:
        numbers = range(self.part.index, self.options.connections, self.part.of)
        self._channels, self.endpoints = await open_channels(self.options, numbers)
        self.exchanges = [self._exchange(channel) for channel in self._channels]

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()

    async def warm_up(self, recording: Recording) -> None:
        """Calls in the way of the run, for as long as asked for, and notes nothing but how many."""
        if not self.options.warmup_ns:
            return
        scratch = Recording(len(self.options.hosts), False, max_detailed_calls=0)
        turns = self._turns(FIRST_WARMUP_NUMBER, None)
        await _Run(self, scratch, turns, time.monotonic_ns(), Timing(self.options.warmup_ns, "wait")).finish()
        recording.warmup_calls, recording.warmup_ns = scratch.more.count, scratch.elapsed_ns
        self._interrupted = scratch.end_reason == "cancel"

    async def run(self, recording: Recording, start_ns: int) -> None:
        """The calls of the run, which begins at a time of the monotonic clock."""
        options = self.options
        if self._interrupted:
            recording.end_reason = "cancel"
            return
        turns = self._turns(0, options.total)
        cpu_ns = time.process_time_ns()
        await _Run(self, recording, turns, start_ns, Timing(options.end_ns, options.duration_stop)).finish()
        recording.cpu_ns = time.process_time_ns() - cpu_ns

    def _turns(self, first: int, total: int | None) -> Iterator[Turn]:
        """The requests with the time at which each is due, in ns from the start; NOT_DUE without a rate."""
        numbers = self._numbers(first, total)
        if self.options.load is None:
            return ((number, NOT_DUE) for number in numbers)
        return zip(numbers, due_times_ns(self.options.load, self.part.index, self.part.of), strict=False)

    def _exchange(self, channel: grpc.aio.Channel) -> Exchange:
        """One call on a channel, to the end of its answer. Raises AioRpcError."""
        method = self._method
        path = f"/{method.containing_service.full_name}/{method.name}"
        timeout_s = self.options.timeout_ns / 1e9 or None
        stub: Any

        async def unary(messages: list[bytes], metadata: Metadata) -> None:
            await stub(messages[0], timeout=timeout_s, metadata=metadata)

        async def server_stream(messages: list[bytes], metadata: Metadata) -> None:
            async for _ in stub(messages[0], timeout=timeout_s, metadata=metadata):
                pass

        async def client_stream(messages: list[bytes], metadata: Metadata) -> None:
            await stub(self._paced(messages), timeout=timeout_s, metadata=metadata)

        async def both_streams(messages: list[bytes], metadata: Metadata) -> None:
            async for _ in stub(self._paced(messages), timeout=timeout_s, metadata=metadata):
                pass

        # Without serializers the bytes go out as they are.
        if method.client_streaming and method.server_streaming:
            stub = channel.stream_stream(path)
            return both_streams
        if method.client_streaming:
            stub = channel.stream_unary(path)
            return client_stream
        if method.server_streaming:
            stub = channel.unary_stream(path)
            return server_stream
        stub = channel.unary_unary(path)
        return unary

    async def _paced(self, messages: list[bytes]) -> AsyncIterator[bytes]:
        for number, message in enumerate(messages):
            if number and self.options.stream_interval_ns:
                await asyncio.sleep(self.options.stream_interval_ns / 1e9)
            yield message


class _Run:
    """One run or warm-up of a generator."""

    def __init__(
        self, generator: Generator, recording: Recording, turns: Iterator[Turn], start_ns: int, timing: Timing
    ) -> None:
        self._generator = generator
        self._recording = recording
        self._turns = turns
        self._start_ns = start_ns
        self._timing = timing
        self._options = generator.options
        self._level = 0
        self._workers: dict[int, asyncio.Task[None]] = {}
        # The tasks that are in a call; other workers wait for their turn.
        self._busy: set[asyncio.Task[None]] = set()
        self._staging: asyncio.Task[None] | None = None
        self._staged = False
        self._slots = asyncio.Semaphore(MAX_ASYNC_CALLS)
        self._exhausted = False
        self._stopped = False
        self._over = asyncio.Event()
        self._failure: BaseException | None = None

    async def finish(self) -> None:
        """Runs to the end. Raises LoadError when a message cannot be built."""
        loop = asyncio.get_running_loop()
        # An interruption ends the run early, but with its report. Only the main thread hears of one.
        listening = threading.current_thread() is threading.main_thread()
        if listening:
            loop.add_signal_handler(signal.SIGINT, self.stop, "cancel")
        mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            await self._finish(loop)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if listening:
                loop.remove_signal_handler(signal.SIGINT)
        if self._failure is not None:
            raise self._failure

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        await self._until(0)
        timer = None
        if self._timing.length_ns:
            timer = loop.call_at((self._start_ns + self._timing.length_ns) / 1e9, self.stop, "timeout")
        self._staging = asyncio.create_task(self._stage())
        self._staging.add_done_callback(self._staging_ended)
        await self._over.wait()
        self._staging.cancel()
        if timer is not None:
            timer.cancel()
        if self._busy:
            await asyncio.wait(self._busy)
        self._recording.elapsed_ns = time.monotonic_ns() - self._start_ns
        if self._recording.end_reason == "timeout":
            self._recording.unsent = self._count_due()

    def stop(self, reason: str) -> None:
        """Sends no more. What becomes of the calls under way is said by the timing."""
        if self._stopped:
            return
        self._stopped = True
        self._recording.end_reason = reason
        if self._staging is not None:
            self._staging.cancel()
        for task in set(self._workers.values()) - self._busy:
            task.cancel()
        if self._timing.stop != "wait":
            for task in self._busy:
                task.cancel()
        self._check_over()

    def _count_due(self) -> int:
        """How many of the requests that are left were due before the end."""
        length_ns = self._timing.length_ns
        return (
            sum(1 for _ in takewhile(lambda turn: turn[1] < length_ns, self._turns))
            if self._options.load
            else 0
        )

    async def _until(self, due_ns: int) -> bool:
        """Whether there was anything to wait for."""
        wait_ns = self._start_ns + due_ns - time.monotonic_ns()
        if wait_ns <= 0:
            return False
        await asyncio.sleep(wait_ns / 1e9)
        return True

    async def _stage(self) -> None:
        """Starts workers as the concurrency rises; those that are too many end after their call."""
        part = self._generator.part
        if self._options.asynchronous:
            self._start(part.index, self._dispatch())
        else:
            for time_ns, level in self._options.concurrency.stages():
                await self._until(time_ns)
                self._level = level
                for number in range(part.index, level, part.of):
                    if number not in self._workers:
                        self._start(number, self._work(number))

    def _staging_ended(self, task: asyncio.Task[None]) -> None:
        self._staged = True
        self._note_failure(task)
        self._check_over()

    def _start(self, number: int, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._workers[number] = task
        task.add_done_callback(lambda task: self._ended(number, task))

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._workers[number]
        self._note_failure(task)
        self._check_over()

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self.stop("failed")

    def _check_over(self) -> None:
        if not self._workers and (self._stopped or self._exhausted or self._staged):
            self._over.set()

    def _next_turn(self) -> Turn | None:
        turn = None if self._stopped else next(self._turns, None)
        self._exhausted |= turn is None
        return turn

    async def _work(self, worker: int) -> None:
        """Takes the next request when the one before is answered."""
        while worker < self._level and (turn := self._next_turn()) is not None:
            early = turn[1] != NOT_DUE and await self._until(turn[1])
            await self._call(worker, turn, early)

    async def _dispatch(self) -> None:
        """Sends each request when it is due, whether those before it are answered or not."""
        workers = max(self._options.concurrency.highest() or 1, 1)
        while (turn := self._next_turn()) is not None:
            early = await self._until(turn[1]) and not self._slots.locked()
            await self._slots.acquire()
            task = asyncio.create_task(self._call(turn[0] % workers, turn, early))
            # Noted before it first runs, so that it is not lost when the run ends now.
            self._busy.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._slots.release()
        self._note_failure(task)

    async def _call(self, worker: int, turn: Turn, early: bool) -> None:
        """One call. `early`: a worker was free before it was due, so that if it is late that is our fault."""
        generator, (number, due_ns) = self._generator, turn
        channel = worker // generator.part.of % len(generator.exchanges)
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            name = f"g{worker}c{channel}"
            messages = generator.payloads.of(number, name)
            metadata = generator.metadata.of(number, name)
            sent_ns = time.monotonic_ns()
            status, error = await _outcome(generator.exchanges[channel](messages, metadata))
            ended_ns = time.monotonic_ns()
        finally:
            self._busy.discard(task)
        if task.cancelling() and self._timing.stop == "ignore":
            return
        offset_ns = sent_ns - self._start_ns
        delay_ns = NOT_DUE if due_ns == NOT_DUE else max(offset_ns - due_ns, 0)
        if early:
            self._recording.lag.record(delay_ns)
        self._recording.record(
            generator.endpoints[channel], status, error, offset_ns, ended_ns - sent_ns, delay_ns
        )


async def _outcome(exchange: Awaitable[None]) -> tuple[int, str]:
    """The number of the status and the error's text as Go's gRPC has it, empty when there is none."""
    try:
        await exchange
    except grpc.aio.AioRpcError as error:
        status, details = STATUS_NUMBERS[error.code().name], error.details()
    except asyncio.CancelledError:
        # The run has been stopped. (A server that answers with this status is an error like others.)
        status, details = CANCELED, "the call was canceled"
    else:
        return OK, ""
    return status, f"rpc error: code = {STATUSES[status]} desc = {details}"
