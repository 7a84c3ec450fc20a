"""Whether the generator is the bottleneck: the same calls made by h2load, nghttp2's generator in C.

It posts one prepared gRPC frame over HTTP/2 again and again, to the empty server and to a replica's
GetMemories. An answer counts when it has as many bytes as the right one: a gRPC error has none.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile

from agentmem.bench.suite import empty_server, figures, memory_operations, process_trees
from agentmem.bench.suite.callers import Call, run_callers
from agentmem.bench.suite.empty_server import EmptyClient
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.workbench import Workbench, WrongAnswer
from agentmem.v1 import reader_pb2

CALLERS = 16
MIN_CALLS = 100
GET_MEMORIES = "/agentmem.v1.ReaderService/GetMemories"
_TIMEOUT_S = 60.0
_FRAME_HEADER_BYTES = 5
_REQUESTS = re.compile(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed")
_RATE = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_TRAFFIC = re.compile(r"\((\d+)\) data")


async def measure(bench: Workbench) -> Section:
    """The section ``cross_check``; without h2load it says so."""
    if shutil.which("h2load") is None:
        bench.say("h2load is not there (Debian/Ubuntu: apt install nghttp2-client)")
        return {"h2load": "", "cases": []}
    async with bench.running(replicas=1) as (nodes, client):
        await bench.load(client, memory_operations.NAMESPACE, 0, bench.scale.memories)
        await nodes.settle()
        replica = next(iter(nodes.replicas().values()))
        request = reader_pb2.GetMemoriesRequest(namespace=memory_operations.NAMESPACE, ids=["m1"])
        reader = nodes.reader(replica.address)
        answer = await reader.GetMemories(request)
        empty = EmptyClient(bench.empty.address)

        async def get(number: int) -> None:
            await reader.GetMemories(request)

        posted, answered = request.SerializeToString(), answer.ByteSize()
        replica_pid, empty_pid = replica.pid, bench.empty.pid
        try:
            cases = [
                await _compared(
                    bench,
                    "empty call",
                    empty.call,
                    empty_pid,
                    bench.empty.address,
                    empty_server.METHOD,
                    b"",
                    0,
                ),
                await _compared(
                    bench,
                    "get of a memory",
                    get,
                    replica_pid,
                    replica.address,
                    GET_MEMORIES,
                    posted,
                    answered,
                ),
            ]
        finally:
            await empty.close()
        return {"h2load": await _version(), "cases": cases, "callers": CALLERS}


async def _compared(
    bench: Workbench, name: str, call: Call, pid: int, address: str, method: str, posted: bytes, answered: int
) -> Section:
    """The two generators in turn."""
    bench.say(f"{name}, by h2load and by grpc.aio")
    await run_callers(call, CALLERS, seconds=bench.scale.seconds / 2)
    own: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(bench.scale.rounds):
        before_s = process_trees.usage(pid).cpu_s
        done = await run_callers(call, CALLERS, seconds=bench.scale.seconds)
        own.append(
            {
                "per_s": done.attempts / done.elapsed_s,
                "server_cpu_ms": (process_trees.usage(pid).cpu_s - before_s) / done.attempts * 1e3,
                "client_cpu_share": done.client_cpu_s / done.elapsed_s,
            }
        )
        before_s = process_trees.usage(pid).cpu_s
        # As many calls as the other made, so that it takes about as long.
        per_s, calls = await _h2load(address, method, posted, answered, max(done.attempts, MIN_CALLS))
        theirs.append(
            {"per_s": per_s, "server_cpu_ms": (process_trees.usage(pid).cpu_s - before_s) / calls * 1e3}
        )
    ratios = [{"per_s": other["per_s"] / mine["per_s"]} for other, mine in zip(theirs, own, strict=True)]
    return {
        "name": name,
        "grpc_aio": figures.by_name(own),
        "h2load": figures.by_name(theirs),
        "h2load_to_grpc_aio": figures.by_name(ratios)["per_s"],
    }


async def _h2load(address: str, method: str, posted: bytes, answered: int, calls: int) -> tuple[float, int]:
    """Calls per second, and how many there were. Raises WrongAnswer when one was not the right one."""
    with tempfile.NamedTemporaryFile() as frame:
        frame.write(b"\0" + len(posted).to_bytes(4, "big") + posted)
        frame.flush()
        text = await _output(
            *("h2load", "-n", str(calls), "-c", "1", "-m", str(CALLERS)),
            *("-d", frame.name, "-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{address}{method}",
        )
    return read_output(text, _FRAME_HEADER_BYTES + answered)


def read_output(text: str, answer_bytes: int) -> tuple[float, int]:
    """What h2load printed: calls per second, and calls.

    Args:
        answer_bytes: of each right answer, with its frame's header.

    Raises WrongAnswer when it cannot be read, or the answers are not of this size.
    """
    rate, requests, traffic = _RATE.search(text), _REQUESTS.search(text), _TRAFFIC.search(text)
    if rate is None or requests is None or traffic is None:
        raise WrongAnswer(f"h2load printed something else than was expected: {text}")
    succeeded, failed = int(requests[1]), int(requests[2])
    if failed or not succeeded or int(traffic[1]) != succeeded * answer_bytes:
        raise WrongAnswer(
            f"h2load had {succeeded} answers of {traffic[1]} bytes in all, not of {answer_bytes} each, "
            f"and {failed} that failed"
        )
    return float(rate[1]), succeeded


async def _version() -> str:
    return (await _output("h2load", "--version")).strip()


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(_TIMEOUT_S):
        printed, _ = await process.communicate()
    if process.returncode:
        raise WrongAnswer(f"{command[0]} ended with {process.returncode}: {printed.decode(errors='replace')}")
    return printed.decode(errors="replace")
