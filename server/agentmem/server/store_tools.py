"""``agentmem-server log | verify | restore``: the files of a store, without or beside its process.

Exit codes: 0 all is well; 1 damage was found or the operation failed; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from agentmem.core.data_directory import DataDirectoryInUse, is_in_use
from agentmem.core.environment import StoreFormatError
from agentmem.core.errors import AgentMemError
from agentmem.core.log import Operation, decode_entry
from agentmem.core.process import EXIT_FAILED
from agentmem.server.store_files import BackupError, Manifest, open_read_only, restore, store_folder

COMMANDS = ("log", "verify", "restore")
DEFAULT_LOG_ENTRIES = 20
_LOG_ROW = "{:>10}  {:<26}  {:>5}  {:<12}  {:>9}  {}"


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (AgentMemError, StoreFormatError, BackupError, DataDirectoryInUse, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentmem-server")
    commands = parser.add_subparsers(required=True)
    log = commands.add_parser("log", help="print the log", description="Prints entries of a store's log.")
    log.add_argument("path", type=Path, help="a data directory, a store or a backup")
    log.add_argument(
        "--from", dest="first", type=_count, help="the revision to begin with (default: the last ones)"
    )
    log.add_argument(
        "--limit", type=_count, default=DEFAULT_LOG_ENTRIES, help="entries (default: %(default)s)"
    )
    log.set_defaults(run=_print_log)
    verify = commands.add_parser(
        "verify",
        help="check a store or a backup",
        description="Reads everything in a store, also while it is written to, and names what is damaged.",
    )
    verify.add_argument("path", type=Path, help="a data directory, a store or a backup")
    verify.set_defaults(run=_verify)
    restoring = commands.add_parser(
        "restore",
        help="make a data directory from a backup",
        description="Checks a backup and makes the store of a data directory from it, for a writer, or for a "
        "replica that is to begin there.",
    )
    restoring.add_argument("backup", type=Path, help="the folder of the backup")
    restoring.add_argument("data_dir", type=Path, help="a data directory without a store")
    restoring.add_argument(
        "--new-cluster",
        action="store_true",
        help="begin a cluster of its own, which replicas of the old one do not follow",
    )
    restoring.set_defaults(run=_restore)
    for command in (log, verify, restoring):
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _print_log(options: argparse.Namespace) -> int:
    store = open_read_only(store_folder(options.path))
    try:
        with store.read() as transaction:
            newest = transaction.revision
            first = options.first or max(1, newest - options.limit + 1)
            names = {space.number: name for name, space in transaction.namespaces()}
            entries = [
                _entry_document(revision, value, names)
                for revision, value in islice(transaction.log_values(first), options.limit)
            ]
    finally:
        store.close()
    if options.json:
        for entry in entries:
            print(json.dumps(entry))
        return 0
    print(_LOG_ROW.format("revision", "time", "epoch", "chain hash", "bytes", "operations"))
    for entry in entries:
        chain_hash = entry["chain_hash"][:12]
        print(
            _LOG_ROW.format(
                entry["revision"], entry["time"], entry["epoch"], chain_hash, entry["bytes"], _summary(entry)
            )
        )
    return 0


def _entry_document(revision: int, value: bytes, names: dict[int, str]) -> dict[str, Any]:
    entry, chain_hash = decode_entry(value, revision)
    counts: dict[str, Counter[str]] = {}
    for operation in entry.operations:
        kind = Operation.Kind.Name(operation.kind).removeprefix("KIND_").lower()
        name = names.get(operation.namespace_number, f"number {operation.namespace_number}")
        counts.setdefault(name, Counter())[kind] += 1
    return {
        "revision": entry.revision,
        "time": datetime.fromtimestamp(entry.time_us / 1e6, UTC).isoformat(timespec="microseconds")[:26],
        "epoch": entry.epoch,
        "chain_hash": chain_hash.hex(),
        "bytes": len(value),
        "operations": {name: dict(kinds) for name, kinds in counts.items()},
        "settings": [change.name for change in entry.namespaces],
        "has_request_id": entry.HasField("request"),
        "has_receipt": entry.HasField("receipt"),
        "promoted": entry.promotion.writer_id,
    }


def _summary(entry: dict[str, Any]) -> str:
    parts = [
        f"{name}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        for name, kinds in entry["operations"].items()
    ]
    parts += [f"settings of {name}" for name in entry["settings"]]
    parts += ["receipt"] if entry["has_receipt"] else []
    parts += [f"{entry['promoted']} becomes the writer"] if entry["promoted"] else []
    return "; ".join(parts) or "the outcome of a request"


def _verify(options: argparse.Namespace) -> int:
    folder = store_folder(options.path)
    document = _verified(folder, show_progress=not options.json and sys.stderr.isatty())
    manifest = Manifest.of(folder)
    if manifest is not None:
        problem = manifest.problem(folder)
        document["problems"] += [problem] if problem else []
        document["problem_count"] += bool(problem)
    if options.json:
        print(json.dumps(document))
    else:
        for line in _report_lines(document):
            print(line)
    return EXIT_FAILED if document["problem_count"] else 0


def _verified(folder: Path, *, show_progress: bool) -> dict[str, Any]:
    """The report on a store, made by another process: damaged pages may crash whoever reads them."""
    in_use = ["--in-use"] if is_in_use(folder.resolve().parent) else []
    command = [sys.executable, "-m", "agentmem.server.verifier", str(folder), *in_use]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            last = line.strip()
            if show_progress:
                print(f"\r\x1b[K{last}", end="", file=sys.stderr, flush=True)
        if show_progress:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        output = process.stdout.read()
    if process.returncode == 0:
        document: dict[str, Any] = json.loads(output)
        return document
    if process.returncode < 0:
        last = f"its pages are damaged: reading them ended with signal {-process.returncode}"
    return {"problem_count": 1, "problems": [last or "it cannot be read"], "counts": {}}


def _report_lines(document: dict[str, Any]) -> Iterator[str]:
    if document.get("cluster_id"):
        yield (
            f"cluster {document['cluster_id']}, epoch {document['epoch']}, revision {document['revision']}"
        )
    for name, count in sorted(document["counts"].items()):
        yield f"{count:>12,}  {name}"
    if not document["problem_count"]:
        yield "no damage found"
        return
    yield f"{document['problem_count']} problems:"
    for problem in document["problems"]:
        yield f"  {problem}"
    if document["problem_count"] > len(document["problems"]):
        yield f"  and {document['problem_count'] - len(document['problems'])} more"


def _restore(options: argparse.Namespace) -> int:
    document = _verified(options.backup, show_progress=not options.json and sys.stderr.isatty())
    if document["problem_count"]:
        raise BackupError(f"the backup is damaged: {document['problems'][0]}")
    position = restore(options.backup, options.data_dir, new_cluster=options.new_cluster)
    result = {
        "data_dir": str(options.data_dir),
        "cluster_id": position.cluster_id.hex(),
        "epoch": position.epoch,
        "revision": position.revision,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(
            f"restored revision {position.revision} of cluster {result['cluster_id']} to {options.data_dir}"
        )
    return 0
