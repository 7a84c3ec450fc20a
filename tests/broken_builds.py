"""Builds with one promise broken on purpose: a checker that finds nothing in them proves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("protos", "core", "server", "replica", "client")


@dataclass(frozen=True, slots=True)
class Breakage:
    """What is changed in the code.

    Attributes:
        what: is broken.
        changes: file, text in it that is there once, text in its place.
        faults: those that bring it to light soon; empty for all.
    """

    what: str
    changes: tuple[tuple[str, str, str], ...]
    faults: tuple[str, ...] = ()


_READS = "replica/agentmem/replica/consistent_reads.py"
_QUEUE = "server/agentmem/server/commit_queue.py"
BREAKAGES: Mapping[str, Breakage] = {
    "revision": Breakage(
        "a replica does not wait for min_revision",
        ((_READS, "if revision < demand.min_revision:", "if False:"),),
    ),
    "epoch": Breakage(
        "a replica does not look for what a promotion left behind",
        ((_READS, "            check_not_lost(transaction, demand)\n", ""),),
        faults=("failover after kill", "failover while stopped"),
    ),
    "staleness": Breakage(
        "a replica takes itself for as fresh as any read wants",
        ((_READS, "or part.freshness.is_as_of(demand.as_of_s):", "or part.freshness:"),),
    ),
    "heartbeat": Breakage(
        "a replica is fresh as of when it looks at what it last heard of the writer",
        (
            (
                "replica/agentmem/replica/membership.py",
                "                self._advance()\n",
                "                self._advance()\n"
                "                if self._follower.is_connected and self._follower.head_revision:\n"
                "                    epoch, revision = self._link.known_epoch, self._follower.head_revision\n"
                "                    head = Head(boot_time_s(), epoch, revision)\n"
                "                    self._store_freshness.learn(head)\n"
                "                    self._view_freshness.learn(head)\n",
            ),
        ),
        faults=("replica stopped for a while",),
    ),
    "session": Breakage(
        "a session does not say what it has seen",
        (
            (
                "client/agentmem/client/async_connection.py",
                "return given if floor == NOWHERE else given & Consistency(at_least=floor)",
                "return given",
            ),
        ),
    ),
    "entry": Breakage(
        "a replica passes over the operations of each 20th entry",
        (
            (
                "core/agentmem/core/write_transaction.py",
                "        for operation in entry.operations:\n            kind = operation.kind\n",
                "        for operation in entry.operations if entry.revision % 20 else ():\n"
                "            kind = operation.kind\n",
            ),
        ),
    ),
    "commit": Breakage(
        "writes are answered before they are committed",
        (
            (
                _QUEUE,
                "        return transaction.revision > before\n",
                "        self._loop.call_soon_threadsafe(self._acknowledge, list(group), False)\n"
                "        time.sleep(0.02)\n"
                "        return transaction.revision > before\n",
            ),
        ),
    ),
    "request": Breakage(
        "a request that comes again is carried out again",
        (
            (
                "server/agentmem/server/requests.py",
                "if request is None or outcome is None or",
                "if request is not outcome or outcome is None or",
            ),
        ),
    ),
    "watch": Breakage(
        "a watch that goes on at another node begins where it first began",
        (
            (
                "client/agentmem/client/change_stream.py",
                "after = self._reached\n",
                'after = self.__dict__.setdefault("first", self._reached)\n',
            ),
        ),
    ),
    "behind": Breakage(
        "a replica is promoted though another has more",
        (
            (
                "replica/agentmem/replica/promotion.py",
                "> (own.epoch, own.revision) and not force:",
                "> (own.epoch, own.revision) and own is None:",
            ),
        ),
        faults=("failover after kill", "replica killed", "replica stopped for a while"),
    ),
    "aside": Breakage(
        "what a promotion left behind is not set aside",
        (
            (
                "replica/agentmem/replica/process.py",
                "path = await asyncio.to_thread(set_aside, store, directory.path, error.common_revision)",
                "path = None",
            ),
        ),
        faults=("failover after kill", "failover while stopped"),
    ),
}


class NoSuchText(Exception):
    """The text that a breakage replaces is not in the code, or several times."""


def broken_copy(folder: Path, breakage: Breakage) -> dict[str, str]:
    """Copies the packages to an empty folder and breaks them; the environment that makes Python take them.

    Raises:
        NoSuchText: nothing of use was made.
    """
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text, instead in breakage.changes:
        path = folder / name
        code = path.read_text(encoding="utf-8")
        if code.count(text) != 1:
            raise NoSuchText(f"{name} has {code.count(text)} times {text!r}")
        path.write_text(code.replace(text, instead), encoding="utf-8")
    roots = [*(folder / name for name in FOLDERS), ROOT / "tests"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))}


def run_broken(
    folder: Path, breakage: Breakage, arguments: Sequence[str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Runs bench/chaos.py with a broken build."""
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "chaos.py"), *arguments],
        env=broken_copy(folder, breakage),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
