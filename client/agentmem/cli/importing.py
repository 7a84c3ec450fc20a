"""`agentmem import`: JSON lines of new memories, or of an export."""

import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO

from agentmem.cli import documents, exporting, failures
from agentmem.cli.failures import CommandError, usage_error
from agentmem.client import (
    Acknowledged,
    Acknowledgement,
    AddOutcome,
    AlreadyExists,
    Client,
    DuplicatePolicy,
    ImportConflict,
    MemoryVersion,
    NewMemory,
)
from agentmem.client.errors import AgentMemError, InvalidArgument
from agentmem.client.importing import MAX_MESSAGE_VERSIONS

BATCH_SIZE = 500
# Keeps a batch of long memories well below the size of a message.
BATCH_BYTES = 4 * 1024 * 1024
_BATCH_POSITION = re.compile(r"memories\[(\d+)\]")
_VERSION_POSITION = re.compile(r"^versions\[(\d+)\](?:\.memory)?[.:]? ?")
# A message that is being sent, one that is made ready, and what comes with it into the next.
_MAX_VERSIONS_ON_THE_WAY = 3 * MAX_MESSAGE_VERSIONS


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file, or standard input for `-`, and how many lines it has, if that can be known."""
    if path == "-":
        yield sys.stdin.buffer, None
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
        line_count = sum(1 for _ in file) if file.seekable() else None
    except OSError as error:
        raise usage_error(f"cannot read {path}: {error.strerror}") from error
    with file:
        if line_count is not None:
            file.seek(0)
        yield file, line_count


@dataclass(slots=True)
class Done:
    """What an import came to. ``what``: of which things."""

    what: str
    imported: int = 0
    skipped: int = 0
    merged: int = 0
    revision: int = 0
    epoch: int = 0
    acknowledged: Acknowledged | None = None


def run(
    client: Client,
    namespace: str,
    lines: Iterable[bytes],
    *,
    target: str,
    on_progress: Callable[[int], None],
    on_duplicate: DuplicatePolicy | None,
    skip_existing: bool,
    acknowledgement: Acknowledgement,
) -> Done:
    """Imports all lines; raises CommandError at the first that cannot be."""
    numbered = _numbered(lines, on_progress)
    first = next(numbered, None)
    rest = numbered if first is None else chain([first], numbered)
    header = None if first is None else _header(*first)
    if header is None:
        if skip_existing:
            raise usage_error("--skip-existing: is for exports; for new memories there is --on-duplicate")
        policy = on_duplicate or DuplicatePolicy.ADD
        importer = Importer(client, namespace, target, on_progress, policy, acknowledgement)
        importer.run(rest)
        return importer.done
    if on_duplicate is not None:
        raise usage_error("--on-duplicate: is for new memories; for an export there is --skip-existing")
    try:
        exporting.check_header(header)
    except ValueError as error:
        raise usage_error(str(error)) from error
    on_progress(1)
    conflict = ImportConflict.SKIP if skip_existing else ImportConflict.FAIL
    return _import_versions(client, namespace, numbered, target, on_progress, conflict, acknowledgement)


def _numbered(lines: Iterable[bytes], on_progress: Callable[[int], None]) -> Iterator[tuple[int, bytes]]:
    """The lines that have something on them, with their numbers."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, line
        else:
            on_progress(1)


def _header(number: int, line: bytes) -> dict[str, Any] | None:
    """The first line of an export; None when it is not one."""
    try:
        document = _parsed(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) and exporting.HEADER_KEY in document else None


@dataclass(slots=True)
class Importer:
    """Adds lines to one namespace; what stands before a bad line is in, nothing from there on."""

    client: Client
    namespace: str
    target: str
    on_progress: Callable[[int], None]
    on_duplicate: DuplicatePolicy
    acknowledgement: Acknowledgement
    done: Done = field(default_factory=lambda: Done("memories"))
    _batch: list[tuple[int, NewMemory]] = field(default_factory=list)
    _batch_bytes: int = 0

    def run(self, numbered: Iterable[tuple[int, bytes]]) -> None:
        """Imports all lines; raises CommandError at the first that cannot be."""
        for number, line in numbered:
            try:
                memory = documents.to_memory(_parsed(line))
            except (ValueError, InvalidArgument) as error:
                self._flush()
                raise usage_error(self._stopped_at(f"line {number}", str(error))) from error
            self._batch.append((number, memory))
            self._batch_bytes += len(line)
            if len(self._batch) >= BATCH_SIZE or self._batch_bytes >= BATCH_BYTES:
                self._flush()
        self._flush()

    def _flush(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        try:
            self._add(batch)
        except AgentMemError as error:
            position = _BATCH_POSITION.match(error.metadata.get("field", ""))
            if position is not None:
                bad = int(position[1])
                self._add(batch[:bad])
                where = f"line {batch[bad][0]}"
            else:
                where = f"lines {batch[0][0]} to {batch[-1][0]}"
            failure = failures.from_client(error, self.target)
            raise CommandError(self._stopped_at(where, str(failure)), failure.exit_code) from error

    def _add(self, batch: list[tuple[int, NewMemory]]) -> None:
        if not batch:
            return
        added = self.client.add_many(
            self.namespace,
            [memory for _, memory in batch],
            on_duplicate=self.on_duplicate,
            acknowledgement=self.acknowledgement,
        )
        outcomes = [memory.outcome for memory in added.memories]
        self.done.imported += outcomes.count(AddOutcome.ADDED)
        self.done.skipped += outcomes.count(AddOutcome.SKIPPED)
        self.done.merged += outcomes.count(AddOutcome.MERGED)
        self.done.revision, self.done.epoch = added.revision, added.epoch
        self.done.acknowledged = added.acknowledged
        self.on_progress(len(batch))

    def _stopped_at(self, where: str, problem: str) -> str:
        imported = self.done.imported + self.done.skipped + self.done.merged
        return f"{where}: {problem}\n{imported} memories were imported before it, nothing after it"


def _import_versions(
    client: Client,
    namespace: str,
    numbered: Iterator[tuple[int, bytes]],
    target: str,
    on_progress: Callable[[int], None],
    conflict: ImportConflict,
    acknowledgement: Acknowledgement,
) -> Done:
    # The lines of the versions that are on their way; a refusal names the position of one.
    sent: deque[tuple[int, int]] = deque(maxlen=_MAX_VERSIONS_ON_THE_WAY)
    problem = ""

    def found() -> Iterator[MemoryVersion]:
        """The versions before the first bad line."""
        nonlocal problem
        for position, (number, line) in enumerate(numbered):
            try:
                version = exporting.to_version(_parsed(line))
            except (ValueError, InvalidArgument) as error:
                problem = f"line {number}: {error}"
                return
            sent.append((position, number))
            yield version
            on_progress(1)

    try:
        result = client.import_versions(
            namespace, found(), on_conflict=conflict, acknowledgement=acknowledgement
        )
    except AgentMemError as error:
        failure = failures.from_client(error, target)
        text, count = str(failure), error.metadata.get("imported_versions", "0")
        if (position := _VERSION_POSITION.match(text)) is not None:
            text = f"line {dict(sent)[int(position[1])]}: {text[position.end() :]}"
        if isinstance(error, AlreadyExists):
            text += "\n--skip-existing leaves out what is there"
        raise CommandError(f"{text}\n{_only(int(count))}", failure.exit_code) from error
    done = Done("versions", result.imported_versions, result.skipped_versions)
    done.revision, done.epoch, done.acknowledged = result.revision, result.epoch, result.acknowledged
    if problem:
        raise usage_error(f"{problem}\n{_only(done.imported)}")
    return done


def _only(count: int) -> str:
    return f"{count} versions were imported before it, nothing after it"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
