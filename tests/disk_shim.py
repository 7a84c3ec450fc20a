"""The shim of disk_shim.c: built with the system's C compiler, and put before a process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# About what an SSD takes.
SYNC_US = 2000
_SOURCE = Path(__file__).with_suffix(".c")


class NoShim(Exception):
    """The shim cannot be built here; says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Which calls on the data file fail, and how.

    Args:
        kind: EIO, ENOSPC, SHORT for a write that writes half, or FULL for a disk that fills up as long as the
            trigger is there, whatever else is given.
        calls: the calls that count: any of w (writes), m (writes of the meta page), s (syncs).
        nth: the one that fails, counted from 1 once the trigger is there.
        lasting: all later ones fail, too, while the trigger is there.
    """

    kind: str
    calls: str = "wms"
    nth: int = 1
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-{self.calls}-{self.nth}{'-lasting' if self.lasting else ''}"


def build_shim(folder: Path) -> Path:
    """The shared object, in the folder. Raises NoShim."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        raise NoShim("the shim is made for 64-bit Linux")
    if shutil.which("cc") is None:
        raise NoShim("there is no C compiler: no cc")
    library = folder / "disk_shim.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-pthread", "-o", str(library), str(_SOURCE)],
        check=True,
    )
    return library


def slow_syncs(library: Path) -> dict[str, str]:
    """The environment of a process whose syncs take as long as on a disk, and that is not recorded."""
    return {"LD_PRELOAD": str(library), "DISK_SYNC_US": str(SYNC_US)}


def shim_environment(
    library: Path, trace: Path, fault: Fault | None = None, trigger: Path | None = None
) -> dict[str, str]:
    """What a process has to find in its environment to be recorded, and failed while ``trigger`` exists."""
    environment = {**slow_syncs(library), "DISK_TRACE": str(trace)}
    if fault is not None:
        environment |= {
            "DISK_FAULT": fault.kind,
            "DISK_FAULT_CALLS": fault.calls,
            "DISK_FAULT_NTH": str(fault.nth),
            "DISK_FAULT_TRIGGER": str(trigger),
        }
        if fault.lasting:
            environment["DISK_FAULT_LASTING"] = "1"
    return environment
