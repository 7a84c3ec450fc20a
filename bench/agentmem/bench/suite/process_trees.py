"""What a process and its children use, from /proc.

A segment is built and a snapshot copied in a child of the node; what these cost is a cost of the node.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/<pid>/stat behind the name, which is in brackets: see proc(5), counted from "state".
_PPID, _UTIME, _CSTIME, _THREADS = 1, 11, 14, 17


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a tree of processes.

    Attributes:
        cpu_s: since each began, of those that ended too; in steps of a hundredth.
        rss_bytes: resident, mapped files included; pages that processes share count in each.
        anonymous_bytes: of these, what is not of a file: what the processes hold themselves.
        open_files, threads: now.
    """

    cpu_s: float
    rss_bytes: int
    anonymous_bytes: int
    open_files: int
    threads: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.cpu_s + other.cpu_s,
            self.rss_bytes + other.rss_bytes,
            self.anonymous_bytes + other.anonymous_bytes,
            self.open_files + other.open_files,
            self.threads + other.threads,
        )


def usage(pid: int) -> Usage:
    """Of a process and all of its descendants. Raises ProcessLookupError when there is no such process."""
    children = _children()
    total, waiting, is_root = Usage(0.0, 0, 0, 0, 0), [pid], True
    while waiting:
        each = waiting.pop()
        try:
            total += _of_one(each)
        except (FileNotFoundError, ProcessLookupError):
            if is_root:
                raise ProcessLookupError(f"there is no process {pid}") from None
            # A child ended; its parent has its time.
            continue
        finally:
            is_root = False
        waiting += children[each]
    return total


def own_bytes(pid: int) -> int:
    """The anonymous memory of one process. Raises FileNotFoundError when there is no such process."""
    return _of_one(pid).anonymous_bytes


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for pid in _pids():
        try:
            found[int(_stat(pid)[_PPID])].append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since it was listed
    return found


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _of_one(pid: int) -> Usage:
    fields = _stat(pid)
    # Pages: size, resident, shared (of files).
    _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    return Usage(
        # With the time of children that were waited for.
        cpu_s=sum(int(ticks) for ticks in fields[_UTIME : _CSTIME + 1]) / _TICKS_PER_S,
        rss_bytes=int(resident) * _PAGE_BYTES,
        anonymous_bytes=(int(resident) - int(shared)) * _PAGE_BYTES,
        open_files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(fields[_THREADS]),
    )
