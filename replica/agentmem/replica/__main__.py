"""``agentmem-replica``: a replica process."""

from __future__ import annotations

import os
import sys

# Before NumPy is loaded: several searches run at once, and each would spread a scan of microseconds over all
# cores and wait for them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

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
