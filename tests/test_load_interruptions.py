"""The load generator's processes, and what ends them early."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import wait_until
from load_server import PROTO, SERVICE, LoadServer

TEN_MINUTES = (
    *(sys.executable, "-m", "agentmem.bench", "load", "--insecure", "--call", f"{SERVICE}/Echo"),
    *("-z", "10m", "-c", "4"),
)


@pytest.fixture
def server() -> Iterator[LoadServer]:
    with LoadServer() as server:
        yield server


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_reports_what_it_did(processes: int, server: LoadServer, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [*TEN_MINUTES, "--duration-stop", "wait", "--processes", str(processes)]
    command += ["-O", "json", "-o", str(out)]
    run = subprocess.Popen([*command, "--rps", "100", server.address])
    try:
        wait_until(lambda: len(server.received) > 20, "calls")
        run.send_signal(signal.SIGINT)
        assert run.wait(30.0) == 0
    finally:
        run.kill()
        run.wait()
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["endReason"] == "cancel"
    assert report["statusCodeDistribution"] == {"OK": len(server.received)}


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interruption_before_the_first_call_is_said(processes: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [*TEN_MINUTES, "--proto", str(PROTO), "--processes", str(processes)]
        run = subprocess.Popen(
            [*command, "--connect-timeout", "10m", address],
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            silent.settimeout(60.0)
            connection, _ = silent.accept()
            with connection:
                # As a terminal does, to all of its processes.
                os.killpg(run.pid, signal.SIGINT)
                _, text = run.communicate(timeout=60.0)
        finally:
            run.kill()
            run.wait()
    assert (run.returncode, text) == (130, "interrupted before the first call\n")


def test_a_generator_process_that_dies_ends_the_run(server: LoadServer) -> None:
    run = subprocess.Popen(
        [*TEN_MINUTES, "--rps", "100", "--processes", "2", server.address], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(server.received) > 5, "calls")
        generators = [pid for pid in children(run.pid) if "spawn_main" in command_line(pid)]
        assert len(generators) == 2
        os.kill(generators[1], signal.SIGKILL)
        # The other would go on for ten minutes.
        _, text = run.communicate(timeout=60.0)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 2
    assert "a generator process ended with exit code -9" in text
