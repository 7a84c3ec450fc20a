"""`agentmem import`: memories from JSON lines, added in batches."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from agentmem.cli import documents, failures
from agentmem.cli.failures import CommandError
from agentmem.client import Client, NewMemory
from agentmem.client.errors import AgentMemError, InvalidArgument

BATCH_SIZE = 500
# Keeps a batch of long memories well below the size of a message.
BATCH_BYTES = 4 * 1024 * 1024
_BATCH_POSITION = re.compile(r"memories\[(\d+)\]")


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
        raise failures.usage_error(f"cannot read {path}: {error.strerror}") from error
    with file:
        if line_count is not None:
            file.seek(0)
        yield file, line_count


@dataclass(slots=True)
class Importer:
    """Adds lines to one namespace; what stands before a bad line is in, nothing from there on."""

    client: Client
    namespace: str
    target: str
    on_progress: Callable[[int], None]
    imported: int = 0
    revision: int = 0
    _batch: list[tuple[int, NewMemory]] = field(default_factory=list)
    _batch_bytes: int = 0

    def run(self, lines: Iterable[bytes]) -> None:
        """Imports all lines; raises CommandError at the first that cannot be."""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                self.on_progress(1)
                continue
            try:
                memory = documents.to_memory(_parsed(line))
            except (ValueError, InvalidArgument) as error:
                self._flush()
                raise failures.usage_error(self._stopped_at(f"line {number}", str(error))) from error
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
        if batch:
            self.revision = self.client.add_many(self.namespace, [memory for _, memory in batch]).revision
            self.imported += len(batch)
            self.on_progress(len(batch))

    def _stopped_at(self, where: str, problem: str) -> str:
        return f"{where}: {problem}\n{self.imported} memories were imported before it, nothing after it"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
