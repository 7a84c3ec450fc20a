"""The result of measuring: one JSON document.

schema      the version of this format, 1
machine     what it ran on: cpu, cores, memory, kernel
software    python, packages, the commit of this clone
run         when it began (UTC), the sizes, the dataset
sections    by the name of the part: {"seconds": how long it took, ...}; what else is in one is said by the
            module that measures it
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict, cast

from agentmem.bench.suite.figures import rounded
from agentmem.bench.suite.measurement import Section
from agentmem.bench.suite.scale import Scale

# Raised when a section's keys change: the report of an older document would lack them.
SCHEMA = 2
_PACKAGES = (
    "agentmem-grpc",
    "grpcio",
    "protobuf",
    "lmdb",
    "numpy",
    "tantivy",
    "annoy",
    "faiss-cpu",
    "wordllama",
)
_ROOT = Path(__file__).parents[4]


class DocumentError(Exception):
    """A file that is not a document of this schema; the message names it."""


class Document(TypedDict):
    """See above."""

    schema: int
    machine: dict[str, Any]
    software: dict[str, str]
    run: dict[str, Any]
    sections: dict[str, Section]


def begin(scale: Scale, dataset: str) -> Document:
    """A document without sections."""
    return Document(
        schema=SCHEMA,
        machine=_machine(),
        software=_software(),
        run={
            "begun": datetime.now(UTC).isoformat(timespec="seconds"),
            "scale": dataclasses.asdict(scale),
            "dataset": dataset,
            "load_average": [rounded(value) for value in os.getloadavg()],
        },
        sections={},
    )


def put(document: Document, name: str, section: Section, seconds: float) -> None:
    """Adds a section, which took so long."""
    document["sections"][name] = {"seconds": rounded(seconds), **section}


def save(document: Document, path: Path) -> None:
    """Writes it; the folder is made when it is not there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load(path: Path) -> Document:
    """Reads one. Raises DocumentError."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DocumentError(f"{path}: not JSON: {error}") from error
    if not isinstance(read, dict) or read.get("schema") != SCHEMA:
        raise DocumentError(f"{path}: schema must be {SCHEMA}; measure again")
    missing = [name for name in Document.__required_keys__ if name not in read]
    if missing:
        raise DocumentError(f"{path}: {', '.join(sorted(missing))} missing")
    return cast(Document, read)


def _machine() -> dict[str, Any]:
    return {
        "cpu": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
    }


def _line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _software() -> dict[str, str]:
    found = {"python": platform.python_version(), "commit": _commit()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _commit() -> str:
    """Of the clone that this file is in, with a + when files were changed."""
    git = ["git", "-C", str(_ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown: git is not installed"
    if commit.returncode:
        return "unknown: not a git clone"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
