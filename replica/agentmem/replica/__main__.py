"""``agentmem-replica``: a replica process."""

from __future__ import annotations

import sys

from agentmem.core.process import run_process
from agentmem.replica.process import run
from agentmem.replica.settings import ReplicaSettings


def main() -> int:
    return run_process(
        ReplicaSettings,
        "replica",
        "A replica of an AgentMem cluster: follows the writer's log in a store of its own and serves gets, "
        "lists and searches.",
        run,
    )


if __name__ == "__main__":
    sys.exit(main())
