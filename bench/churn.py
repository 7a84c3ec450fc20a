"""Updates and deletions under load: exit code 1 when a read returned what was dead before it began.

    PYTHONPATH=tests python bench/churn.py [--reads N] [--seed N] [--json]

A writer and two replicas; owners add, update and delete memories and read in their sessions, readers get,
list and search in every mode, two of three reads STRONG. tests/churn_load.py says what is compared.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from churn_load import churn
from cluster import Cluster

from agentmem.client import Client

MAX_SHOWN_VIOLATIONS = 20


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Reads among updates and deletions.")
    parser.add_argument("--reads", type=int, default=100_000)
    parser.add_argument("--owners", type=int, default=2, help="threads that write (%(default)s)")
    parser.add_argument("--readers", type=int, default=6, help="threads that only read (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    given = parser.parse_args(words)
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder)) as cluster,
        Client(cluster.writer.address) as client,
    ):
        began_s = time.monotonic()
        ledger = churn(
            client, "churn", owners=given.owners, readers=given.readers, reads=given.reads, seed=given.seed
        )
        took_s = time.monotonic() - began_s
    numbers = {
        "reads": dict(sorted(ledger.reads.items())),
        "writes": dict(sorted(ledger.writes.items())),
        "seconds": round(took_s, 1),
        "violations": ledger.violations[:MAX_SHOWN_VIOLATIONS],
        "violation_count": len(ledger.violations),
    }
    if given.json:
        print(json.dumps(numbers))
    else:
        for name in ("reads", "writes"):
            for kind, count in numbers[name].items():  # type: ignore[attr-defined]
                print(f"{name:7} {kind:20} {count:8}")
        print(f"{sum(ledger.reads.values())} reads, {sum(ledger.writes.values())} writes in {took_s:.0f} s")
        for violation in ledger.violations[:MAX_SHOWN_VIOLATIONS]:
            print(violation)
        print(f"{len(ledger.violations)} violations")
    return int(bool(ledger.violations))


if __name__ == "__main__":
    sys.exit(main())
