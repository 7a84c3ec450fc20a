"""The process that verifies a store: ``python -m agentmem.server.verifier STORE``.

Prints the report as JSON; progress, or why there is none, goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from agentmem.core.environment import StoreFormatError
from agentmem.core.errors import AgentMemError
from agentmem.core.verification import verify
from agentmem.server.store_files import open_read_only


def main(path: Path) -> int:
    try:
        store = open_read_only(path)
        report = verify(store, lambda name, count: print(f"{count:,} {name} read", file=sys.stderr))
        store.close()
    except (StoreFormatError, AgentMemError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({field.name: getattr(report, field.name) for field in dataclasses.fields(report)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
