"""A replica that is killed at a stage of its bootstrap, named by STAGE, once: it leaves the file STOPPED."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

STAGES = ("there", "store moved away", "installed")

_rename = Path.rename
_rmtree = shutil.rmtree


def _stop(stage: str) -> None:
    stopped = Path(os.environ["STOPPED"])
    if os.environ["STAGE"] == stage and not stopped.exists():
        stopped.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _rename_and_stop(self: Path, target: Any) -> Path:
    result = _rename(self, target)
    if Path(target).name == "data.mdb" and Path(target).parent.name == "snapshot":
        _stop("there")
    elif Path(target).name == "store.replaced":
        _stop("store moved away")
    elif self.name == "snapshot":
        _stop("installed")
    return result


if __name__ == "__main__":
    Path.rename = _rename_and_stop  # type: ignore[method-assign, assignment]

    from agentmem.replica.__main__ import main

    sys.exit(main())
