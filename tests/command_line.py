"""The `agentmem` command as a process of its own, run from the code that is tested."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import programs

COMMAND_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Cli:
    """The command with its environment."""

    target: str
    namespace: str = ""

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"AGENTMEM_TARGET": self.target, "AGENTMEM_NAMESPACE": self.namespace}
        done = programs.run(
            "agentmem.cli",
            *arguments,
            environment=environment,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
            timeout_s=COMMAND_TIMEOUT_S,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """The document that a command prints."""
        done = self(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def failed(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Checks a failure: its code, nothing on standard output, a line or two that say what to do."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 4
    for part in parts:
        assert part in done.stderr
