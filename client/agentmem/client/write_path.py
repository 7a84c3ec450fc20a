"""Taking a write to the writer, until it is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agentmem.client import calls, verdicts
from agentmem.client.calls import Calls, Method, NotSent, Request, Response
from agentmem.client.channels import Endpoint
from agentmem.client.errors import AgentMemError
from agentmem.client.tracing import attempt_kind
from agentmem.client.verdicts import WriteVerdict

# Tells the writer of the highest epoch that the client knows: one that was replaced steps down.
EPOCH_KEY = "agentmem-epoch"


@dataclass(slots=True)
class Doubt:
    """Whether a write may have been done, by an attempt that was not answered."""

    exists: bool = False


@dataclass(slots=True)
class _Progress:
    """How far a write has come."""

    said: dict[str, str] = field(default_factory=dict)
    redirected_to: str = ""
    was_redirected: bool = False
    rounds: int = 0
    sent: int = 0
    owes_a_retry: bool = False
    out_of_retries: bool = False


class WritePath:
    """Sends writes to the writer that the topology names."""

    def __init__(self, shared: Calls) -> None:
        self._calls = shared

    async def write(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        timeout_s: float,
        is_repeatable: bool,
        request_id: str,
        doubt: Doubt,
        is_retry: bool,
        begun_at_s: float | None,
    ) -> Response:
        """See Router.write."""
        self._calls.begin()
        deadline_s = (time.monotonic() if begun_at_s is None else begun_at_s) + timeout_s
        progress = _Progress(owes_a_retry=is_retry)
        while progress.sent < calls.MAX_ATTEMPTS:
            topology = await self._calls.watch.current(deadline_s)
            if time.monotonic() >= deadline_s:
                break
            address = progress.redirected_to or (topology.writer.address if topology.writer else "")
            progress.redirected_to = ""
            if address:
                if progress.owes_a_retry and not await self._calls.retries.take(deadline_s):
                    progress.out_of_retries = True
                    break
                progress.owes_a_retry = False
                try:
                    return await self._send(address, method, request, deadline_s, progress)
                except AgentMemError as error:
                    if self._judge(address, error, progress, doubt):
                        raise
                    if progress.redirected_to:
                        continue
                    if doubt.exists and not is_repeatable:
                        break
            await self._calls.pause(progress.rounds, deadline_s)
            progress.rounds += 1
        said, sent = progress.said, progress.sent
        if doubt.exists:
            raise calls.unanswered(said, timeout_s, sent, request_id, out_of_retries=progress.out_of_retries)
        raise calls.nobody_answered(
            "the write was not done: no writer took it",
            said,
            "the cluster has no writer",
            timeout_s,
            sent,
            out_of_retries=progress.out_of_retries,
        )

    def _judge(self, address: str, error: AgentMemError, progress: _Progress, doubt: Doubt) -> bool:
        """Takes in the end of an attempt; whether it is the end of the write."""
        progress.said[address] = error.message
        progress.sent += not isinstance(error, NotSent)
        progress.owes_a_retry = verdicts.costs_a_retry(error)
        writer_address = _redirection(error)
        if writer_address and not progress.was_redirected:
            progress.redirected_to, progress.was_redirected = writer_address, True
            return False
        verdict = verdicts.write_verdict(error, in_doubt=doubt.exists)
        doubt.exists = doubt.exists or verdict is WriteVerdict.IN_DOUBT
        return verdict is WriteVerdict.FINAL

    async def _send(
        self,
        address: str,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float,
        progress: _Progress,
    ) -> Response:
        """One attempt."""
        with self._calls.channels.use(address) as endpoint:
            await calls.connect(endpoint, deadline_s)
            self._calls.counters.retries += progress.sent > 0
            attempt_kind.set("retry" if progress.sent else "")
            metadata = ((EPOCH_KEY, str(self._calls.epoch)),) if self._calls.epoch else ()
            return await self._calls.write(endpoint, method, request, deadline_s, metadata)

    @asynccontextmanager
    async def writer(self, timeout_s: float) -> AsyncIterator[Endpoint]:
        """See Router.writer."""
        deadline_s = time.monotonic() + timeout_s
        said: dict[str, str] = {}
        rounds = 0
        while True:
            topology = await self._calls.watch.current(deadline_s)
            if topology.writer is not None and topology.writer.address:
                with self._calls.channels.use(topology.writer.address) as endpoint:
                    try:
                        await calls.connect(endpoint, deadline_s)
                    except NotSent as error:
                        said[endpoint.address] = error.message
                    else:
                        yield endpoint
                        return
            if time.monotonic() >= deadline_s:
                raise calls.nobody_answered(
                    "the writer could not be reached", said, "the cluster has no writer", timeout_s, 0
                )
            await self._calls.pause(rounds, deadline_s)
            rounds += 1


def _redirection(error: AgentMemError) -> str:
    """The address of the writer, when a node that is not said so."""
    return error.metadata.get("writer_address", "") if error.reason == "NOT_WRITER" else ""
