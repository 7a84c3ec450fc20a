"""``agentmem-server``: the writer process, and with a command, tools for the files of a store."""

from __future__ import annotations

import sys

from agentmem.core.process import run_process
from agentmem.server.process import run
from agentmem.server.settings import WriterSettings
from agentmem.server.store_tools import COMMANDS, run_command


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        return run_command(sys.argv[1:])
    return run_process(
        WriterSettings,
        "writer",
        "The writer of an AgentMem cluster: owns the store, acknowledges writes that are on disk, and "
        f"streams its log to replicas. For the files of a store: agentmem-server {'|'.join(COMMANDS)} -h.",
        run,
    )


if __name__ == "__main__":
    sys.exit(main())
