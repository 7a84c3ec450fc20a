"""The whole suite for a moment, on real processes, and the report of what it measured."""

from __future__ import annotations

import asyncio
import copy
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentmem.bench.suite import callers, document, markup, quick, report, run, tables
from agentmem.bench.suite.callers import run_callers
from agentmem.bench.suite.corpus import Corpus, misspelt
from agentmem.bench.suite.document import Document, DocumentError
from agentmem.bench.suite.empty_server import EmptyServer
from agentmem.bench.suite.nodes import Nodes, running
from agentmem.bench.suite.plots import Axis, Plot, Point, Series, svg
from agentmem.bench.suite.questions import has_phrase, phrase
from agentmem.bench.suite.scale import TINY
from agentmem.bench.suite.workbench import Workbench, WrongAnswer
from agentmem.client import STRONG, AsyncClient
from agentmem.client.errors import Unavailable

# It starts some twenty processes, which takes long where others are started as well.
pytestmark = pytest.mark.timeout(400)
SCALE = replace(
    TINY,
    sizes=(60,),
    concurrency=(4,),
    users=3,
    operations=5,
    replicas=(1,),
    seconds=0.02,
    missed=100,
    questions=3,
    owned=(100,),
    freshness=2,
)
# Where a value should be that is not there.
MISSING = re.compile(r"\b(None|nan|inf|NaN|Infinity|undefined)\b")


@dataclass(frozen=True)
class SharedBench(Workbench):
    """One cluster for all parts: to start one for each is what takes long."""

    nodes: Nodes
    client: AsyncClient

    @asynccontextmanager
    async def _shared(self) -> AsyncIterator[tuple[Nodes, AsyncClient]]:
        yield self.nodes, self.client

    def running(self, replicas: int) -> AbstractAsyncContextManager[tuple[Nodes, AsyncClient]]:
        return self._shared()

    async def load(self, client: AsyncClient, namespace: str, first: int, end: int) -> int:
        # Several parts have the same memories.
        there = await client.get_many(namespace, [f"m{first}"], consistency=STRONG)
        return 0 if there.memories else await super().load(client, namespace, first, end)


@pytest.fixture(scope="module")
def measured() -> Document:
    begun = document.begin(SCALE, "the bundled conversations")

    async def measure(empty: EmptyServer) -> None:
        async with running(2) as (nodes, client):
            bench = SharedBench(SCALE, Corpus(), empty, lambda text: None, nodes, client)
            for name, part in run.PARTS.items():
                document.put(begun, name, await part(bench), 1.0)
            longer = replace(bench, scale=replace(SCALE, seconds=0.4))
            begun["run"]["ratios"] = await quick.ratios(longer, {"search text"})

    with EmptyServer() as empty:
        asyncio.run(measure(empty))
    return begun


def test_every_part_measures_what_it_says(measured: Document) -> None:
    sections = measured["sections"]
    assert list(sections) == list(run.PARTS)
    cases = [case for case in each_case(sections) if "figures" in case and "callers" in case]
    assert len(cases) > 25
    for case in cases:
        values = case["figures"]
        assert len(values["per_s"]["runs"]) == SCALE.rounds, case["name"]
        assert values["per_s"]["low"] > 0
        assert values["p50_ms"]["low"] > 0
        assert values["empty_per_s"]["low"] > 0
        assert case["errors"] == {}, case["name"]
    assert [
        row["accuracy"] for row in sections["search"]["sizes"][0]["accuracy"] if row["mode"] == "semantic"
    ] == [1.0] * 4
    assert {
        row["accuracy"] for row in sections["search"]["sizes"][0]["accuracy"] if row["mode"] == "exact"
    } == {1.0}
    users = sections["concurrency"]["users"]
    assert users["calls"] == SCALE.rounds * SCALE.users * SCALE.operations
    assert len(sections["soak"]["samples"]) >= 4
    assert set(sections["soak"]["growth"]) == {"writer", "replica-1", "replica-2"}
    footprint = sections["search"]["sizes"][0]["footprint"]
    assert min(footprint["stored_bytes"].values()) > 60 * 1024
    assert min(footprint["anonymous_bytes"].values()) > 10e6


def each_case(value: Any) -> list[dict[str, Any]]:
    """Every object with a name, wherever in the document."""
    if isinstance(value, dict):
        found = [value] if "name" in value else []
        return found + [case for each in value.values() for case in each_case(each)]
    return [case for each in value for case in each_case(each)] if isinstance(value, list) else []


def test_ratios_are_of_the_nodes_and_of_the_client(measured: Document) -> None:
    ratios = measured["run"]["ratios"]
    assert set(ratios) == {"search text: nodes", "search text: client"}
    # A search does more than nothing, on both sides.
    assert min(ratios.values()) > 1


class Page(HTMLParser):
    """The text of a page, its headings, and what it loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.loaded: list[str] = []
        self._is_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_heading = tag == "h2"
        self.loaded += [
            value or ""
            for name, value in attrs
            if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        if self._is_heading:
            self.headings.append(data)
            self._is_heading = False


def test_the_command_writes_a_document_of_what_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "soak.json"
    assert run.main(["--tiny", "--only", "soak", "--soak-seconds", "1.2", "--out", str(out)]) == 0
    written = document.load(out)
    assert list(written["sections"]) == ["soak"]
    assert written["machine"]["cores"] > 0
    assert written["software"]["grpcio"]
    assert "A MIXED LOAD" in capsys.readouterr().out.upper()


@pytest.mark.parametrize(
    "words", [["--rounds", "2"], ["--sizes", "5,3"], ["--dataset", "/nowhere"], ["--only", "x"]]
)
def test_a_run_that_cannot_be_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(words)
    assert ended.value.code == 2


def test_the_report_has_every_section_and_every_figure(measured: Document, tmp_path: Path) -> None:
    source = tmp_path / "bench.json"
    document.save(measured, source)
    assert report.main([str(source), "--out", str(tmp_path / "reports")]) == 0
    text = (tmp_path / "reports" / markup.MARKDOWN).read_text()
    page = (tmp_path / "reports" / markup.PAGE).read_text()
    parsed = Page()
    parsed.feed(page)
    assert parsed.headings == ["How it was measured", *report.TITLES.values()]
    assert parsed.loaded == []
    for title in report.TITLES.values():
        assert f"\n## {title}\n" in text
    assert MISSING.findall(text) == []
    assert (
        MISSING.findall(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).replace('fill="none"', ""))
        == []
    )
    assert "Not measured" not in text
    drawings = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(drawings) >= 10
    for name in drawings:
        root = ElementTree.fromstring((tmp_path / "reports" / name).read_text())
        marks = [
            each
            for each in root.iter()
            if each.tag.rpartition("}")[2] in ("circle", "rect", "polygon", "polyline")
        ]
        assert marks, name
    add = next(case for case in measured["sections"]["memory_operations"]["cases"] if case["name"] == "add")
    assert tables.shown(add["figures"]["per_s"]) in text


def test_sections_that_were_not_measured_are_named(measured: Document) -> None:
    part = copy.deepcopy(measured)
    part["sections"] = {"soak": part["sections"]["soak"]}
    text = markup.markdown(report.blocks([part]))
    assert text.count("Not measured") == len(report.TITLES) - 1
    assert "--only search`" in text


def test_later_documents_take_precedence(measured: Document) -> None:
    later = copy.deepcopy(measured)
    later["sections"] = {"soak": later["sections"]["soak"] | {"calls": 123_456}}
    text = markup.markdown(report.blocks([measured, later]))
    assert "123,456 calls" in text
    assert report.merged([measured, later])["soak"].of is later
    assert report.merged([measured, later])["search"].of is measured


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 1}', '{"schema": 2, "sections": {}}'])
def test_what_is_no_document_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(DocumentError, match=r"bench\.json"):
        document.load(path)
    with pytest.raises(SystemExit) as ended:
        report.main([str(path)])
    assert ended.value.code == 2


def test_callers_make_as_many_calls_as_they_are_told_and_count_errors() -> None:
    seen: list[int] = []

    async def call(number: int) -> None:
        seen.append(number)
        if number % 4 == 0:
            raise Unavailable("no")

    done = asyncio.run(run_callers(call, 3, calls_each=8))
    assert sorted(seen) == list(range(24))
    assert (len(done.latencies_s), done.errors, done.attempts) == (18, {"Unavailable": 6}, 24)
    # However short the time is, each of them makes a call.
    assert asyncio.run(run_callers(call, 3, seconds=1e-9)).attempts == 3


def test_an_error_that_is_not_of_agentmem_ends_the_measurement() -> None:
    async def call(number: int) -> None:
        raise WrongAnswer("that is not what was asked for")

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run_callers(call, 2, seconds=5))
    assert {type(each) for each in raised.value.exceptions} == {WrongAnswer}
    with pytest.raises(ValueError, match="either"):
        asyncio.run(run_callers(call, 2))


def test_too_many_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MAX_CALLS", 5)

    async def call(number: int) -> None:
        return

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run_callers(call, 1, calls_each=6))
    assert isinstance(raised.value.exceptions[0], OverflowError)


def test_memories_are_the_same_each_time_and_hardly_one_is_there_twice() -> None:
    one, other = Corpus(), Corpus()
    numbers = range(0, 20_000, 37)
    assert [one.memory(number) for number in numbers] == [other.memory(number) for number in numbers]
    texts = [one.text(number) for number in range(20_000)]
    assert len(set(texts)) > 0.999 * len(texts)
    shares = [
        sum(tag in one.memory(number).tags for number in range(4_000)) / 4_000 for tag in ("half", "tenth")
    ]
    assert shares == pytest.approx([0.5, 0.1], abs=0.03)


def test_questions_are_of_their_memories() -> None:
    corpus = Corpus()
    for number in corpus.searchable(100, among=1_000):
        assert has_phrase(corpus.text(number), phrase(corpus, number))
        assert all(word in corpus.text(number).lower() for word in corpus.words(number))
    assert misspelt("kitchen", 3) != "kitchen"
    assert sorted(misspelt("kitchen", 3)) == sorted("kitchen")
    assert not has_phrase("a kitchenette table", "kitchen")


def test_marks_of_an_axis_are_round_and_within_it() -> None:
    assert Axis([0.0, 97.0], 0, 100, is_log=False).ticks() == [0, 20, 40, 60, 80, 100]
    assert Axis([1.0, 1000.0], 0, 100, is_log=True).ticks() == pytest.approx([1, 10, 100, 1000])
    falling = Axis([0.0, 10.0], 300, 0, is_log=False)
    assert falling.place(0) == 300
    assert falling.place(10) > 0
    assert falling.place(2) > falling.place(8)


def test_a_plot_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        svg(Plot("nothing", "x", "y", []))
    with pytest.raises(ValueError, match="above 0"):
        svg(Plot("zero", "x", "y", [Series("a", [Point(1, 0)])], log_y=True))
    drawn = svg(Plot("a < b", "x", "y", [Series("flat", [Point(1, 5, low=4, high=6)])]))
    assert "a &lt; b" in drawn
    assert 'class="range"' in drawn
    ElementTree.fromstring(drawn)
