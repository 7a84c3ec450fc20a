"""What is printed for people. The only module that imports rich."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_GAP = "  "
_MIN_LAST_COLUMN_CELLS = 24
_INDENT_BELOW_CELLS = 4
# Memories are other people's text. Control characters could drive the terminal; bidirectional embeddings,
# overrides and isolates show a line in another order than it has; characters without width make two ids look
# like one. What scripts and emoji are written with (joiners, left-to-right and right-to-left marks) stays.
_MISLEADING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u180e\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)

# A text, and how it is shown.
Line = tuple[str, str | None]

_out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
_err = Console(highlight=False, markup=False, emoji=False, soft_wrap=True, stderr=True)


def say(text: str = "", style: str | None = None) -> None:
    """Prints to standard output."""
    _out.print(printable(text), style=style)


def note(text: str) -> None:
    """Prints to standard error what is not part of the answer."""
    _err.print(printable(text))


def fail(text: str) -> None:
    """Prints an error to standard error."""
    _err.print(Text("agentmem: ", style="bold red").append(printable(text), style="default not bold"))


def printable(text: str) -> str:
    """The text, with escapes such as ``\\x1b`` for what would drive the terminal or mislead."""
    return _MISLEADING.sub(_escape, text)


def printable_json(document: str) -> str:
    """The same JSON document with these characters escaped: they can only be in its strings."""
    return _MISLEADING.sub(lambda found: json.dumps(found[0])[1:-1], document)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def table(rows: Sequence[Sequence[str]], header: Sequence[str] | None = None) -> None:
    """Prints aligned columns. Elsewhere than on a terminal a row is a line.

    On one the last column wraps, and goes below the others when these leave it too little room.
    """
    cells = [
        [printable(" ".join(cell.split())) for cell in row] for row in ([header] if header else []) + [*rows]
    ]
    if not cells:
        return
    widths = [max(cell_len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    indent = sum(widths) + len(_GAP) * len(widths)
    is_below = _out.is_terminal and _out.width - indent < _MIN_LAST_COLUMN_CELLS
    if is_below:
        indent = _INDENT_BELOW_CELLS
    for number, row in enumerate(cells):
        head = "".join(set_cell_size(cell, width) + _GAP for cell, width in zip(row, widths, strict=False))
        parts = [row[-1]]
        is_header = bool(header) and number == 0
        if _out.is_terminal and not is_header:
            parts = [line.plain.rstrip() for line in Text(row[-1]).wrap(_out, _out.width - indent)] or [""]
        style = "bold" if is_header else None
        first = "" if is_below and not is_header else parts.pop(0)
        _out.print((head + first).rstrip(), style=style)
        for part in parts:
            _out.print(" " * indent + part, style=style)


def width_cells() -> int | None:
    """How wide the terminal is on which standard output is; None when it is elsewhere."""
    return _out.width if _out.is_terminal else None


def cells(text: str) -> int:
    """How wide the text is."""
    return cell_len(printable(text))


def cut(text: str, width: int) -> str:
    """The text in just so many cells, with a mark when it had more."""
    text = printable(text)
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


@contextmanager
def screen() -> Iterator[Callable[[Sequence[Line]], None]]:
    """The whole terminal until the end of the ``with`` block; the value shows lines in place of the last."""
    with Live(console=_out, screen=True, auto_refresh=False) as live:

        def show(lines: Sequence[Line]) -> None:
            text = Text(no_wrap=True, overflow="ellipsis")
            for line, style in lines:
                text.append(printable(line) + "\n", style=style)
            live.update(text, refresh=True)

        yield show


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if that is a terminal; the value is called with each advance."""
    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount: bar.advance(task, amount)


@contextmanager
def byte_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """As ``progress``; the value is called with the bytes that are there and all of them."""
    with _bar(DownloadColumn(binary_units=True)) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def count_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """As ``progress``; the value is called with how many there are and all of them."""
    with _bar(MofNCompleteColumn()) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar(amounts: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), amounts, TimeElapsedColumn())
    return Progress(*columns, console=_err, transient=True, disable=not sys.stderr.isatty())


def can_ask() -> bool:
    """Whether somebody sits there to be asked."""
    return sys.stdin.isatty()


def confirmed(question: str) -> bool:
    """Whether the answer to the question is yes."""
    _err.print(f"{printable(question)} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
