"""Runs the generators, in this process or in several, all from the same moment on."""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import grpc

from agentmem.bench.load.connections import blocking_channel
from agentmem.bench.load.descriptors import compile_proto, find_method, read_protoset, reflect
from agentmem.bench.load.durations import show_duration
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.generator import Generator, Part, new_loop
from agentmem.bench.load.options import Options
from agentmem.bench.load.recordings import Recording

# Between the last generator's being ready and the run's start, so that all have heard of it.
START_LEAD_NS = 50 * 10**6
STOP_TIMEOUT_S = 10.0


def run_load(options: Options) -> list[Recording]:
    """Makes the calls. Raises LoadError when a host or the method is not there, or the data does not fit."""
    files = describe(options)
    find_method(files, options.call)
    if options.processes == 1:
        return [_generate(options, files, Part(0, 1), lambda: time.monotonic_ns() + START_LEAD_NS)]
    return _spread(options, files)


def describe(options: Options) -> bytes:
    """The FileDescriptorSet that has the method."""
    if options.proto:
        return compile_proto(options.proto, options.import_paths)
    if options.protoset:
        return read_protoset(options.protoset)
    with blocking_channel(options) as channel:
        timeout_s = options.connect_timeout_ns / 1e9 or None
        timeout = show_duration(options.connect_timeout_ns)
        try:
            # Reflection would fail at once where a connection may yet come.
            grpc.channel_ready_future(channel).result(timeout_s)
        except grpc.FutureTimeoutError as error:
            raise LoadError(f"host: no connection to {options.hosts[0]} within {timeout}") from error
        return reflect(channel, options.call, options.reflect_metadata, timeout_s)


def _generate(options: Options, files: bytes, part: Part, start: Callable[[], int]) -> Recording:
    """One generator's run. `start` is called when it is ready, and says when to begin."""
    recording = Recording(len(options.hosts), options.count_errors)
    generator = Generator(options, files, part)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            runner.run(generator.connect())
            runner.run(generator.warm_up(recording))
            runner.run(generator.run(recording, start()))
        finally:
            runner.run(generator.close())
    return recording


def _child(options: Options, files: bytes, part: Part, connection: Connection) -> None:
    """A generator process: says "ready", hears when to start, sends its recording, or why there is none."""

    def start() -> int:
        connection.send("ready")
        start_ns: int = connection.recv()
        return start_ns

    try:
        connection.send(_generate(options, files, part, start))
    except LoadError as error:
        connection.send(error)
    except EOFError:
        return  # the parent is gone


def _spread(options: Options, files: bytes) -> list[Recording]:
    context = multiprocessing.get_context("spawn")
    children: dict[Connection, SpawnProcess] = {}
    previous = signal.getsignal(signal.SIGINT)
    # Generators hear of an interruption while they make calls; before, they are ended with this process.
    # The tracker that the first would start lets signals through again.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for index in range(options.processes):
            ours, theirs = context.Pipe()
            part = Part(index, options.processes)
            child = context.Process(target=_child, args=(options, files, part, theirs), daemon=True)
            child.start()
            theirs.close()
            children[ours] = child
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _receive_all(children)
        # An interruption ends the run early, but with its report: the generators hear of it and answer.
        signal.signal(signal.SIGINT, lambda *_: _interrupt(children.values()))
        start_ns = time.monotonic_ns() + START_LEAD_NS
        for connection in children:
            connection.send(start_ns)
        recordings = [answer for answer in _receive_all(children) if isinstance(answer, Recording)]
        for child in children.values():
            child.join(STOP_TIMEOUT_S)
        return recordings
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, previous)
        for connection, child in children.items():
            connection.close()
            child.kill()  # does nothing to one that has ended
            child.join()


def _receive_all(children: dict[Connection, SpawnProcess]) -> list[object]:
    """The next answer of each, in their order. Raises LoadError when one has failed, whichever it is."""
    answers: dict[Connection, object] = {}
    while waiting := [connection for connection in children if connection not in answers]:
        for connection in multiprocessing.connection.wait(waiting):
            assert isinstance(connection, Connection)
            child = children[connection]
            try:
                answer = connection.recv()
            except EOFError as error:
                child.join(STOP_TIMEOUT_S)
                raise LoadError(f"a generator process ended with exit code {child.exitcode}") from error
            if isinstance(answer, LoadError):
                raise answer
            answers[connection] = answer
    return [answers[connection] for connection in children]


def _interrupt(children: Iterable[SpawnProcess]) -> None:
    for child in children:
        if child.pid is not None and child.is_alive():
            os.kill(child.pid, signal.SIGINT)
