"""The process that verifies a store: ``python -m agentmem.server.verifier STORE [--in-use]``.

Prints the report as JSON; progress, or why there is none, goes to standard error. The pages of a store that
is being written to are not checked one by one, for they change.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from agentmem.core.environment import StoreFormatError, page_problems
from agentmem.core.errors import AgentMemError
from agentmem.core.verification import MAX_PROBLEMS, Report, verify
from agentmem.server.store_files import open_read_only


def main(path: Path, *, in_use: bool) -> int:
    problems = [] if in_use else page_problems(path)
    if problems:
        # LMDB would follow these pages wherever they point.
        report = Report(problems=problems[:MAX_PROBLEMS], problem_count=len(problems))
        print(_document(report))
        return 0
    try:
        store = open_read_only(path)
        report = verify(store, lambda name, count: print(f"{count:,} {name} read", file=sys.stderr))
        store.close()
    except (StoreFormatError, AgentMemError) as error:
        print(error, file=sys.stderr)
        return 1
    print(_document(report))
    return 0


def _document(report: Report) -> str:
    return json.dumps({field.name: getattr(report, field.name) for field in dataclasses.fields(report)})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), in_use="--in-use" in sys.argv[2:]))
