"""``python -m agentmem.bench report``: what was measured, as Markdown and as one HTML page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmem.bench.suite import document, findings, goals, markup
from agentmem.bench.suite.document import Document, DocumentError
from agentmem.bench.suite.figures import Figure
from agentmem.bench.suite.markup import Block, Drawing, Heading, Text
from agentmem.bench.suite.plots import svg
from agentmem.bench.suite.sections import SECTIONS
from agentmem.bench.suite.tables import Table

TITLES = {name: shown.title for name, shown in SECTIONS.items()}
DEFAULT_FOLDER = Path("reports")
DEFAULT_FILES = (Path("reports/bench.json"), Path("reports/soak.json"))
# A figure whose runs are further apart than this share of it is named as noisy.
NOISY_SPREAD = 0.3
_MAX_NAMED = 5


@dataclass(frozen=True)
class Part:
    """A section, and the document that it is of."""

    name: str
    section: dict[str, object]
    of: Document


def merged(documents: Sequence[Document]) -> dict[str, Part]:
    """The sections of all documents; of two of one name the later one."""
    return {
        name: Part(name, section, each) for each in documents for name, section in each["sections"].items()
    }


def blocks(documents: Sequence[Document]) -> list[Block]:
    """The whole report."""
    parts = merged(documents)
    found: list[Block] = [Heading(1, "Performance of AgentMem"), *_summary(parts)]
    found += [Heading(2, "How it was measured"), *_method(documents, parts)]
    for name, title in TITLES.items():
        found.append(Heading(2, title))
        if name in parts:
            found += _section(parts[name])
        else:
            found.append(Text(f"Not measured. `python -m agentmem.bench suite --only {name}` does."))
    return found


def _summary(parts: dict[str, Part]) -> Iterator[Block]:
    rows = [
        row for name in TITLES if name in parts for row in findings.key_figures(name, parts[name].section)
    ]
    if rows:
        yield Table("In short", ("what", "figure"), rows)
    reached = goals.table({name: part.section for name, part in parts.items()})
    if reached is not None:
        yield reached


def _method(documents: Sequence[Document], parts: dict[str, Part]) -> Iterator[Block]:
    yield Text(
        "A cluster of real processes on one machine, called by the Python client over loopback, as users "
        "call it. "
        "Every figure is the median of several runs, with the lowest and the highest in brackets. Each run "
        "has a "
        "run of empty gRPC calls beside it, to a server of its own that does nothing, at the same "
        "concurrency: "
        "*CPU ÷ empty* says how many times the server CPU of such a call one call takes, and *calls/s ÷ "
        "empty* "
        "compares the throughput. These ratios depend less on the machine than the times do. CPU is that of "
        "the "
        "process trees of all nodes; for writes it includes that replicas apply and index them. Callers "
        "make one "
        "call after the other (a closed loop), and the generator shares the machine with the servers. A "
        "ratio "
        "below 1 is possible: concurrent calls of one client travel together."
    )
    rows = []
    for each in documents:
        machine, run = each["machine"], each["run"]
        measured = [name for name, part in parts.items() if part.of is each]
        rows.append(
            (
                run["begun"].replace("T", " ").replace("+00:00", " UTC"),
                f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB",
                ", ".join(f"{name} {version}" for name, version in each["software"].items()),
                run["dataset"],
                str(run["scale"]["rounds"]),
                ", ".join(f"{value:.2f}" for value in run["load_average"]),
                ", ".join(TITLES[name].lower() for name in measured),
            )
        )
    header = ("begun", "machine", "software", "text", "runs", "load before", "sections")
    yield Table("Runs", header, rows)
    yield Text(_noise(parts))


def _noise(parts: dict[str, Part]) -> str:
    spreads = sorted(
        (
            (figure["spread"], f"{name} ({what})")
            for part in parts.values()
            for what, name, figure in _figures(part.section, TITLES[part.name].lower())
            if name in ("calls per second", "CPU per call")
        ),
        reverse=True,
    )
    if not spreads:
        return "No figure has several runs."
    noisy = [f"{said} {spread:.0%}" for spread, said in spreads if spread > NOISY_SPREAD]
    middle = spreads[len(spreads) // 2][0]
    text = (
        f"The runs of throughput and CPU are {middle:.0%} of their median apart, at the median of "
        f"{len(spreads)} figures."
    )
    if noisy:
        text += (
            f" Of {len(noisy)} they are more than {NOISY_SPREAD:.0%} apart, so that little should be read "
            f"into "
            f"these; most of: {'; '.join(noisy[:_MAX_NAMED])}."
        )
    return text


def _figures(section: object, where: str) -> Iterator[tuple[str, str, Figure]]:
    """Throughput and CPU of all cases of a section: (which case, which figure, figure)."""
    if isinstance(section, dict):
        if "figures" in section and "name" in section and "callers" in section:
            said = f"{section['name']}, {section['callers']} callers, {where}"
            yield said, "calls per second", section["figures"]["per_s"]
            yield said, "CPU per call", section["figures"]["server_cpu_ms"]
        else:
            if "memories" in section:
                where = f"{where}, {section['memories']:,} memories"
            for value in section.values():
                yield from _figures(value, where)
    elif isinstance(section, list):
        for value in section:
            yield from _figures(value, where)


def _section(part: Part) -> Iterator[Block]:
    shown = SECTIONS[part.name]
    for sentence in shown.sentences(part.section):
        yield Text(sentence)
    for number, plot in enumerate(shown.plots(part.section), 1):
        yield Drawing(f"{part.name}-{number}.svg", plot.title, svg(plot))
    yield from shown.tables(part.section)


def main(words: Sequence[str] | None = None) -> int:
    """The command line. Exit code 2 for files that are not documents of the suite."""
    parser = argparse.ArgumentParser(
        prog="python -m agentmem.bench report", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "files", nargs="*", type=Path, help="documents of the suite; sections of later ones take precedence"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help=f"folder, default: {DEFAULT_FOLDER}")
    given = parser.parse_args(words)
    files = given.files or [path for path in DEFAULT_FILES if path.exists()]
    if not files:
        parser.error(f"there is no {DEFAULT_FILES[0]}: measure first, python -m agentmem.bench suite")
    try:
        written = blocks([document.load(path) for path in files])
    except DocumentError as error:
        parser.error(str(error))
    for path in markup.write(written, given.out):
        print(path, file=sys.stdout)
    return 0
