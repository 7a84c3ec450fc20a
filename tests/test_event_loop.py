"""Which event loop a server process runs on."""

from __future__ import annotations

import asyncio
import sys

import pytest

from agentmem.core import event_loop


async def own_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_a_server_runs_on_uvloop_and_without_it_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvloop")
    assert event_loop.run(own_loop()) == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.run(own_loop()) == "asyncio"
