"""A report of headings, sentences, tables and drawings, as Markdown and as one HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from agentmem.bench.suite.tables import Table

MARKDOWN, PAGE, DRAWINGS = "performance_report.md", "performance_report.html", "plots"
_STYLE = """
:root{color-scheme:light dark;--line:#ddd;--soft:#f6f6f6;--text:#222;--muted:#555;--back:#fff}
@media(prefers-color-scheme:dark){:root{--line:#3a3a3a;--soft:#242424;--text:#ddd;--muted:#aaa;--back:#181818}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:1080px;
margin:0 auto;padding:24px}
h1{font-size:28px;margin:8px 0 16px}h2{font-size:21px;margin:44px 0 8px;padding-top:12px;
border-top:1px solid var(--line)}h3{font-size:16px;margin:26px 0 6px}
p{max-width:75ch;margin:8px 0}nav{margin:12px 0 20px}nav a{margin-right:14px;color:inherit}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:600;white-space:nowrap}tbody tr:hover{background:var(--soft)}
td small{color:var(--muted);white-space:nowrap}.note{color:var(--muted);font-size:13.5px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:16px;margin:16px 0}
code{font-size:.92em;background:var(--soft);padding:1px 4px;border-radius:3px}
"""
_CODE, _BOLD, _ITALIC = re.compile(r"`([^`]+)`"), re.compile(r"\*\*(.+?)\*\*"), re.compile(r"\*(.+?)\*")
_RANGE = re.compile(r" (\([^()]*–[^()]*\))")


@dataclass(frozen=True)
class Heading:
    """1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; code, **bold** and *italic* are as in Markdown."""

    text: str


@dataclass(frozen=True)
class Drawing:
    """An SVG element, and the name of its file."""

    file: str
    title: str
    svg: str


Block = Heading | Text | Drawing | Table


def write(blocks: Sequence[Block], folder: Path) -> list[Path]:
    """Writes the report into the folder, which is made when it is not there; returns its files. OSError."""
    (folder / DRAWINGS).mkdir(parents=True, exist_ok=True)
    found = {folder / MARKDOWN: markdown(blocks), folder / PAGE: page(blocks)}
    for block in blocks:
        if isinstance(block, Drawing):
            (folder / DRAWINGS / block.file).write_text(block.svg + "\n", encoding="utf-8")
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    return list(found)


def markdown(blocks: Sequence[Block]) -> str:
    """As Markdown."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Drawing):
            parts.append(f"![{block.title}]({DRAWINGS}/{block.file})")
        else:
            rows = [block.header, tuple("---" for _ in block.header), *block.rows]
            lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
            table = "\n".join(lines) if block.rows else ""
            parts += filter(None, (f"### {block.title}", table, block.note))
    return "\n\n".join(parts) + "\n"


def page(blocks: Sequence[Block]) -> str:
    """As a page that needs no other file."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    sections = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in sections)
    parts: list[str] = []
    drawn: list[str] = []
    for block in blocks:
        if isinstance(block, Drawing):
            drawn.append(f"<div>{block.svg}</div>")
            continue
        if drawn:
            parts.append(f'<div class="plots">{"".join(drawn)}</div>')
            drawn = []
        parts.append(_html(block))
        if isinstance(block, Heading) and block.level == 1:
            parts.append(f"<nav>{links}</nav>")
    if drawn:
        parts.append(f'<div class="plots">{"".join(drawn)}</div>')
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _html(block: Heading | Text | Table) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{_anchor(block.text)}">{escape(block.text)}</h{block.level}>'
    if isinstance(block, Text):
        return f"<p>{_inline(block.text)}</p>"
    parts = [f"<h3>{escape(block.title)}</h3>"]
    if block.rows:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
        rows = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
        parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    if block.note:
        parts.append(f'<p class="note">{_inline(block.note)}</p>')
    return "\n".join(parts)


def _cell(text: str) -> str:
    """The range of the runs below the median, small."""
    return _RANGE.sub(r"<br><small>\1</small>", escape(text))


def _inline(text: str) -> str:
    found = _CODE.sub(r"<code>\1</code>", escape(text))
    return _ITALIC.sub(r"<em>\1</em>", _BOLD.sub(r"<strong>\1</strong>", found))


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
