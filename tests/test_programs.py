"""Programs that are started by a fork: they are what `python -m` would have started."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import programs
import pytest


def server(folder: Path, **environment: str) -> tuple[programs.Fork | subprocess.Popen[bytes], str]:
    """A writer, and what it says when it is ready."""
    out, its_out = os.pipe()
    arguments = ["--data-dir", str(folder), "--insecure", "--listen", "127.0.0.1:0", "--embedder", "none"]
    with open(os.devnull) as nothing, os.fdopen(its_out) as stdout, open(folder / "log", "w") as stderr:
        process = programs.start(
            "agentmem.server", arguments, {**os.environ, **environment}, (nothing, stdout, stderr)
        )
    with os.fdopen(out) as lines:
        return process, lines.readline()


def test_a_fork_has_streams_arguments_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    helped = programs.run("agentmem.server", "--help")
    assert (helped.returncode, helped.stderr) == (0, b"")
    assert b"agentmem-server" in helped.stdout
    refused = programs.run("agentmem.server", "--nothing", environment={**os.environ, "AGENTMEM_X": "1"})
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"--nothing" in refused.stderr


def test_a_fork_ends_as_signals_say(tmp_path: Path) -> None:
    process, said = server(tmp_path)
    assert isinstance(process, programs.Fork)
    assert " ready on " in said
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(20) == process.poll() == -signal.SIGKILL
    process.kill()  # what has ended is left alone
    again, said = server(tmp_path)
    assert " ready on " in said
    again.terminate()
    assert again.wait(20) == 0


def test_a_program_with_an_environment_of_its_own_is_no_fork(tmp_path: Path) -> None:
    process, said = server(tmp_path, MALLOC_ARENA_MAX="2")
    assert isinstance(process, subprocess.Popen)
    assert " ready on " in said
    process.terminate()
    assert process.wait(20) == 0
