"""What compression and half precision save on conversations in the LoCoMo format, and what they cost.

    python bench/compression.py [--dataset FOLDER] [--json]

Every turn becomes a memory as the writer stores it; ``notes`` are several turns in one memory, ``metadata``
is tags and eight values with each turn. The memories of all conversations are one namespace, in the order of
the sessions. A dictionary is trained on the first half, at most 1,000, and measured on the others; ``-``
stands where none pays. Needs no cluster.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import half_precision
import lmdb
import samples
from timing import best_us

from agentmem.cli import bundled, conversations, terminal
from agentmem.cli.conversations import Conversation, ConversationError
from agentmem.cli.failures import ExitCode
from agentmem.core.compression import TRAINING_SAMPLES, Dictionary, compress, decompress, train
from agentmem.core.records import RECORD_HEADER, VECTOR_HEADER

DICTIONARY_KIB = (4, 8, 16, 32, 64)
DIMENSION = 256
FRAGMENT_BYTES = 20
MAX_BYTES = 1 << 20
PAGE_BYTES = 4096

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of memories: those for the training, and those that come later."""

    kind: str
    first: Sequence[bytes]
    later: Sequence[bytes]
    dictionary: Dictionary | None
    training_ms: float

    @classmethod
    def of(cls, kind: str, bodies: Sequence[bytes]) -> "Case":
        count = min(TRAINING_SAMPLES, len(bodies) // 2)
        start_s = time.perf_counter()
        data = train(bodies[:count])
        training_ms = (time.perf_counter() - start_s) * 1e3
        return cls(kind, bodies[:count], bodies[count:], Dictionary(1, data) if data else None, training_ms)


def cases(loaded: Sequence[Conversation]) -> list[Case]:
    """The three kinds of memories."""
    random_ = random.Random(1)
    turns = samples.turns(loaded, random_)
    kinds = {
        "turns": turns,
        "metadata": samples.with_metadata(turns, random_),
        "notes": samples.notes(turns, random_),
    }
    return [
        Case.of(kind, [memory.SerializeToString(deterministic=True) for memory in memories])
        for kind, memories in kinds.items()
    ]


def size_row(case: Case) -> Row:
    """Bytes per memory, for dictionaries of several sizes."""
    row: Row = {
        "kind": case.kind,
        "trained on": len(case.first),
        "measured": len(case.later),
        "raw": fmean(map(len, case.later)),
        "zstd": fmean(len(compress(body)[1]) for body in case.later),
    }
    for kib in DICTIONARY_KIB:
        data = train(case.first, max_dictionary_bytes=kib * 1024)
        used = Dictionary(1, data) if data else None
        row[f"{kib} KiB"] = fmean(len(compress(body, used)[1]) for body in case.later) if used else None
    return row


def time_rows(case: Case) -> Iterator[Row]:
    """Time per memory without a dictionary and with it."""
    yield _time_row(case, None)
    if case.dictionary is not None:
        yield _time_row(case, case.dictionary) | {"training ms": case.training_ms}


def _time_row(case: Case, used: Dictionary | None) -> Row:
    payloads = [compress(body, used) for body in case.later]
    return {
        "kind": case.kind,
        "codec": "dictionary" if used else "zstd",
        "compress us": best_us(lambda body: compress(body, used), case.later),
        "decompress us": best_us(lambda pair: decompress(pair[0], pair[1], used, MAX_BYTES), payloads),
        "training ms": None,
    }


def page_rows(case: Case) -> Iterator[Row]:
    """Bytes of LMDB's pages per memory, for records and for vectors."""
    codecs: dict[str, Callable[[bytes], tuple[int, bytes]]] = {
        "raw": lambda body: (0, body),
        "zstd": compress,
    }
    if case.dictionary is not None:
        codecs["dictionary"] = lambda body: compress(body, case.dictionary)
    count = len(case.later)
    for name, codec in codecs.items():
        yield {
            "kind": case.kind,
            "codec": name,
            "records": page_bytes([bytes(RECORD_HEADER.size + 1) + codec(body)[1] for body in case.later]),
            "vectors float32": page_bytes([bytes(VECTOR_HEADER.size + 4 * DIMENSION)] * count),
            "vectors float16": page_bytes([bytes(VECTOR_HEADER.size + 2 * DIMENSION)] * count),
        }


def page_bytes(values: Sequence[bytes]) -> float:
    """Bytes of pages per value, appended with keys of 8 bytes."""
    with tempfile.TemporaryDirectory() as folder, lmdb.open(folder, map_size=1 << 32) as environment:
        with environment.begin(write=True) as transaction:
            for number, value in enumerate(values):
                transaction.put(number.to_bytes(8, "big"), value, append=True)
        stat = environment.stat()
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages * PAGE_BYTES / len(values)


def fragment_row(case: Case) -> Row:
    """How much of a dictionary stands in one of the memories that it was trained on, and in no other."""
    data = case.dictionary.data if case.dictionary else b""
    found_in: dict[bytes, set[int]] = {}
    for number, body in enumerate(case.first):
        for fragment in _fragments(body):
            found_in.setdefault(fragment, set()).add(number)
    owners = [found_in.get(fragment, set()) for fragment in _fragments(data)]
    alone = [numbers for numbers in owners if len(numbers) == 1]
    return {
        "kind": case.kind,
        "fragments": len(owners),
        "in memories": sum(bool(numbers) for numbers in owners),
        "in one alone": len(alone),
        "memories told of": len(set().union(*alone)),
    }


def _fragments(text: bytes) -> list[bytes]:
    return [text[start : start + FRAGMENT_BYTES] for start in range(len(text) - FRAGMENT_BYTES + 1)]


def measure(loaded: Sequence[Conversation]) -> dict[str, list[Row]]:
    """All tables, by their titles."""
    measured = cases(loaded)
    vectors, answers = half_precision.conversation_rows(loaded)
    return {
        "Bytes per memory, by size of the dictionary": [size_row(case) for case in measured],
        "Time per memory": [row for case in measured for row in time_rows(case)],
        "Bytes of LMDB's pages per memory": [row for case in measured for row in page_rows(case)],
        f"Fragments of {FRAGMENT_BYTES} bytes in a dictionary": [fragment_row(case) for case in measured],
        "Vectors as float16": vectors + half_precision.synthetic_rows(),
        "Answers found with float16": answers,
    }


def print_tables(tables: Mapping[str, Sequence[Row]]) -> None:
    """Each table under its title."""
    for title, rows in tables.items():
        if rows:
            terminal.say(f"\n{title}", style="bold")
            terminal.table([[_cell(value) for value in row.values()] for row in rows], list(rows[0]))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="What compression and half precision save and cost.")
    parser.add_argument(
        "--dataset", type=Path, default=bundled.FOLDER, help="folder of *.json; default: the sample"
    )
    parser.add_argument("--json", action="store_true", help="print the tables as JSON")
    arguments = parser.parse_args()
    try:
        tables = measure(conversations.load_folder(arguments.dataset))
    except ConversationError as error:
        terminal.fail(str(error))
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if arguments.json:
        terminal.say(json.dumps(tables, indent=2))
    else:
        print_tables(tables)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
