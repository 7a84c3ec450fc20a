"""The writer without one of LMDB's syncs, named by WITHOUT: sync or metasync.

It acknowledges what a power cut takes away. Tests of durability run it to see that they would notice.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import lmdb

_open = lmdb.open


def _open_without(*arguments: Any, **settings: Any) -> Any:
    return _open(*arguments, **{**settings, os.environ["WITHOUT"]: False})


if __name__ == "__main__":
    lmdb.open = _open_without  # type: ignore[assignment]

    from agentmem.server.__main__ import main

    sys.exit(main())
