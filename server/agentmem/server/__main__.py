"""``agentmem-server``: the writer process."""

from __future__ import annotations

import sys

from agentmem.core.process import run_process
from agentmem.server.process import run
from agentmem.server.settings import WriterSettings


def main() -> int:
    return run_process(
        WriterSettings,
        "writer",
        "The writer of an AgentMem cluster: owns the store, acknowledges writes that are on disk, and "
        "streams its log to replicas.",
        run,
    )


if __name__ == "__main__":
    sys.exit(main())
