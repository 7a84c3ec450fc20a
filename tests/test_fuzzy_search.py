"""Searches for words that may be misspelt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from cluster import Stubs
from hypothesis import given
from hypothesis import strategies as st

from agentmem.replica.fuzziness import ANY_FUZZINESS, Fuzziness, run_patterns
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.text import TextIndex
from agentmem.replica.vocabulary import Vocabularies, Vocabulary
from agentmem.v1 import consistency_pb2, memory_pb2, reader_pb2, writer_pb2

ALL = OrdinalSet(range(1, 10_000))


def build(folder: Path, contents: Sequence[str], number: int = 1) -> TextIndex:
    index = TextIndex(folder)
    for ordinal, content in enumerate(contents, start=1):
        index.add(number, ordinal, content)
    index.commit()
    return index


def find(
    index: TextIndex,
    text: str,
    count: int,
    fuzziness: Fuzziness = ANY_FUZZINESS,
    *,
    top_k: int = 10,
    allowed: OrdinalSet = ALL,
    number: int = 1,
) -> list[int]:
    hits = index.searcher().search_fuzzy(number, count, text, top_k, allowed, fuzziness)
    assert all(hits.scores > 0)
    assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)
    ordinals: list[int] = hits.ordinals.tolist()
    return ordinals


def edits_between(one: str, other: str) -> int:
    """Optimal string alignment, from its definition."""
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    table[:, 0] = range(len(one) + 1)
    table[0] = range(len(other) + 1)
    for row in range(1, len(one) + 1):
        for column in range(1, len(other) + 1):
            ways = [
                table[row - 1, column] + 1,
                table[row, column - 1] + 1,
                table[row - 1, column - 1] + (one[row - 1] != other[column - 1]),
            ]
            if min(row, column) > 1 and one[row - 2 : row] == other[column - 2 : column][::-1]:
                ways.append(table[row - 2, column - 2] + 1)
            table[row, column] = min(ways)
    return int(table[-1, -1])


_words = st.text(alphabet="abcd7é", min_size=1, max_size=7)


@given(st.lists(_words, min_size=1, max_size=60), _words, st.integers(0, 2))
def test_near_words_are_those_within_the_edits(words: list[str], word: str, max_edits: int) -> None:
    vocabulary = Vocabulary(words)
    edits = min(max_edits, len(word) - 1)
    distances = {other: edits_between(word, other) for other in words if other != word}
    near = vocabulary.near(word, max_edits)
    assert len(near) == len({each.word for each in near})
    assert {each.word: each.edits for each in near} == {
        other: distance for other, distance in distances.items() if distance <= edits
    }
    begun = vocabulary.near(word, max_edits, prefix=True)
    beginnings = {
        other: min(edits_between(word, other[:end]) for end in range(len(other) + 1)) for other in distances
    }
    assert {each.word: (each.edits, each.is_whole) for each in begun} == {
        other: (distance, distances[other] == distance)
        for other, distance in beginnings.items()
        if distance <= edits
    }


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("dinner at the restaurant", "restarant"),  # one missing
        ("dinner at the restaurant", "restaurrant"),  # one more
        ("dinner at the restaurant", "resteurent"),  # two others
        ("dinner at the restaurant", "retsaurant"),  # two changed about
        ("dixxnner", "dinner"),
        ("two dogs", "dog"),  # other forms, as in TEXT
        ("she was running", "run"),
        ("the cat", "teh cta"),
        ("Zürich", "zurihc"),
        ("vitamin B12", "vitamn b12"),
        ("we met on Tuesday", "when did we meat on tusday"),
        ("Привет, мир", "превет"),
        # Runs of up to four characters may have one edit, longer ones two.
        ("我喜欢北京大学", "北东大学"),
        ("我去了动物园", "动勿园"),
        ("我去了动物园", "动园"),
        ("我去了动物园", "动的物园"),
        ("他叫王小明", "王明小"),
        ("他叫王小明", "小王"),
        ("住在上海市中心", "上诲"),
        ("東京タワーに登った", "東京タクーに"),
        ("저는 김치찌개를 좋아해요", "김치찌게"),
        ("她喜欢喝茶", "茶"),
        ("國立台灣大學", "國利台弯大"),
    ],
)
def test_found(tmp_path: Path, content: str, query: str) -> None:
    assert find(build(tmp_path / "text", [content]), query, 1) == [1]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("a cat", "dog"),
        ("ab", "ac"),  # words of up to two characters are taken as they are
        ("house", "hxusy"),  # two edits of five characters
        ("restaurant", "rxstxurxnt"),
        ("the cat is here", "thi dog us"),  # like stop words only
        ("她喜欢喝茶", "菜"),  # one character is taken as it is
        ("动植物", "园园"),
        ("abc", "?!"),
        ("abc", "x" * 300),
    ],
)
def test_not_found(tmp_path: Path, content: str, query: str) -> None:
    assert find(build(tmp_path / "text", [content]), query, 1) == []


@pytest.mark.parametrize(
    ("content", "query", "fuzziness", "found"),
    [
        ("kitchen", "kitchem", Fuzziness(max_edits=0), False),
        ("kitchen", "kitchen", Fuzziness(max_edits=0), True),
        ("kitchen", "kitchem", Fuzziness(max_edits=1), True),
        ("kitchen", "kitcehm", Fuzziness(max_edits=1), False),
        ("kitchen", "kitcehm", Fuzziness(max_edits=2), True),
        ("ab", "ac", Fuzziness(max_edits=1), True),
        ("动物园", "动勿园", Fuzziness(max_edits=0), False),
        ("动物园", "动勿元", Fuzziness(max_edits=2), True),
        ("kitchen", "kitc", ANY_FUZZINESS, False),
        ("kitchen", "kitc", Fuzziness(prefix=True), True),
        ("kitchen", "red kicth", Fuzziness(prefix=True), True),
        ("kitchen", "kitc red", Fuzziness(prefix=True), False),  # the last word alone
        ("kitchen", "k", Fuzziness(prefix=True), True),
        ("thermometer", "the", Fuzziness(prefix=True), True),
        ("thermometer", "red the", Fuzziness(prefix=True), True),
        ("kitchen", "kitc", Fuzziness(max_edits=0, prefix=True), True),
    ],
)
def test_what_is_allowed(
    tmp_path: Path, content: str, query: str, fuzziness: Fuzziness, *, found: bool
) -> None:
    assert find(build(tmp_path / "text", [content]), query, 1, fuzziness) == [1] * found


def test_order(tmp_path: Path) -> None:
    contents = [
        "a trip to the harbour",
        "a trip to the harbor",
        "a trip to the arbor",
        "a trip to the mountains",
        "a visit to the harbor",
        "a visit to the mountains",
    ]
    index = build(tmp_path / "text", contents)
    # As it is, then with one edit; more words before fewer, by their weights.
    assert find(index, "harbor trip", len(contents)) == [2, 5, 3, 1, 4]
    assert find(index, "mountians visit", len(contents))[0] == 6
    assert find(index, "harbor", len(contents)) == [5, 2, 3, 1]
    assert find(index, "hrabour visit", len(contents))[:3] == [5, 6, 1]
    # A rare word near by does not beat the one that is meant.
    crowd = ["the house is red", "the horse is red", *[f"house number {n}" for n in range(50)]]
    found = find(build(tmp_path / "crowd", crowd), "house", len(crowd), top_k=60)
    assert found[-1] == 2
    assert len(found) == len(crowd)
    runs = ["他去过北京大学", "他去过北京小学", "他去过南京小学", "他去过北方"]
    assert find(build(tmp_path / "runs", runs), "北京大学", len(runs))[:2] == [1, 2]


def test_what_was_looked_for(tmp_path: Path) -> None:
    searcher = build(tmp_path / "text", ["the kitchens", "a kitchen", "动物园里", "动园"]).searcher()
    assert searcher.near_tokens(1, 4, "the kitchn 动勿园 zzz", ANY_FUZZINESS) == [
        *("kitchen", "kitchens"),
        *("动园", "动?园"),
    ]


def test_a_search_stays_in_its_namespace(tmp_path: Path) -> None:
    index = build(tmp_path / "text", ["kitchen", "动物园"])
    index.add(11, 100, "kitchen")  # one edit away from namespace 1
    index.add(2, 101, "动物园")
    index.commit()
    assert find(index, "kitchin 动勿园", 2) == [2, 1]
    assert find(index, "kitchin 动勿园", 1, number=11) == [100]
    assert find(index, "kitchin", 1, Fuzziness(max_edits=2), number=2) == []


@pytest.mark.parametrize("matching", [3, 60, 700])
def test_a_filter_leaves_no_gap(tmp_path: Path, matching: int) -> None:
    """There are more near words than are looked for at first."""
    random = np.random.default_rng(matching)
    letters = [chr(letter) for letter in range(ord("a"), ord("z"))]
    words = ["kitchen", *(f"kitch{one}{other}" for one in letters for other in letters), *letters]
    contents = [" ".join(random.choice(words, 2)) for _ in range(1000)]
    index = build(tmp_path / "text", contents)
    allowed = OrdinalSet(random.choice(np.arange(1, 1001), matching, replace=False).tolist())
    having = {ordinal for ordinal in allowed if "kitch" in contents[ordinal - 1]}
    for top_k in (1, 10, 1000):
        found = find(index, "kitchen", 1000, top_k=top_k, allowed=allowed)
        assert len(found) == min(top_k, len(having))
        assert set(found) <= having


def test_words_that_come_and_go(tmp_path: Path) -> None:
    index = build(tmp_path / "text", ["a kitchen"])
    assert find(index, "gardne kitchan", 1) == [1]
    before = index.searcher()
    index.add(1, 2, "a garden")
    assert sorted(find(index, "gardne kitchan", 2)) == [1, 2]  # not committed yet
    index.commit()
    assert find(index, "gardne", 2) == [2]
    lived = OrdinalSet((1,))
    assert before.search_fuzzy(1, 1, "gardne", 10, lived, ANY_FUZZINESS).ordinals.tolist() == []
    index.delete(2)
    index.commit()
    assert find(index, "gardne", 1, allowed=lived) == []
    index.close()
    index = TextIndex(tmp_path / "text")
    assert find(index, "kitchan", 1) == [1]


def test_no_word_is_lost_between_two_readings() -> None:
    """Vocabularies are read again while words wait for their commit."""
    committed: dict[int, list[str]] = {1: ["kitchen"], 2: ["x" * 10]}
    vocabularies = Vocabularies(lambda number: committed[number])

    def words(number: int) -> set[str]:
        return {near.word for near in vocabularies.of(number).near("zzgarden", 2)}

    vocabularies.add(1, {"garden"})  # nobody has asked yet
    assert words(1) == {"garden"}
    vocabularies.add(1, {"gardens"})
    assert words(1) == {"garden"}
    vocabularies.add(1, {"aagarden"})
    assert words(1) == {"garden", "aagarden"}
    vocabularies.add(1, {f"word{n}" for n in range(30_000)})  # it will be read again
    assert words(1) == {"garden", "aagarden"}
    committed[1] += ["garden", "aagarden"]
    vocabularies.begin_commit()
    vocabularies.committed()
    assert words(1) == {"garden", "aagarden"}
    vocabularies.add(1, {f"more{n}" for n in range(45_000)})  # and again
    assert len(vocabularies.of(1)) == 45_003  # of the first 30,000 nothing was committed
    assert words(2) == set()


def test_patterns_leave_no_two_neighbours_of_the_run() -> None:
    shown = [
        "".join("ABC"[ord(c) - 97] + str(p) for p, c in pattern) for pattern, _ in run_patterns("abc", 1)
    ]
    assert shown == ["A0C1", "A0C1B2", "A0C2", "B0A1C2"]
    assert [pattern for pattern, _ in run_patterns("abcd", 1)] == [((0, "a"), (1, "c"), (2, "b"), (3, "d"))]
    assert run_patterns("ab", 1) == [
        *((pattern, 1) for pattern in (((0, "a"),), ((0, "a"), (2, "b")), ((0, "b"),), ((0, "b"), (1, "a"))))
    ]
    assert run_patterns("a", 2) == []
    assert run_patterns("a" * 5000, 2) == []


def test_over_the_network(writer: Stubs, replica: Stubs, namespace: str) -> None:
    contents = ["Ana moved to Lisbon", "Ana moved to London", "安娜搬到了里斯本"]
    added = writer.writer.AddMemories(
        writer_pb2.AddMemoriesRequest(
            namespace=namespace,
            memories=[memory_pb2.Memory(id=str(n), content=content) for n, content in enumerate(contents)],
        ),
        timeout=30,
    )

    def found(text: str, mode: int = reader_pb2.SEARCH_MODE_FUZZY, **fuzziness: int) -> list[str]:
        request = reader_pb2.SearchMemoriesRequest(
            namespace=namespace,
            text=text,
            mode=mode,  # type: ignore[arg-type]
            fuzziness=reader_pb2.Fuzziness(**fuzziness) if fuzziness else None,  # type: ignore[arg-type]
            consistency=consistency_pb2.Consistency(min_revision=added.revision),
        )
        response = replica.reader.SearchMemories(request, timeout=30)
        assert all(hit.score > 0 for hit in response.hits)
        return [hit.memory.id for hit in response.hits]

    assert found("Lisbonn") == ["0"]
    assert found("里思本") == ["2"]
    assert found("Lis", prefix=1) == ["0"]
    assert found("Lis") == []
    assert found("Lixbon", max_edits=0) == []
    with pytest.raises(grpc.RpcError, match=r"fuzziness.max_edits"):
        found("Lisbon", max_edits=3)
    with pytest.raises(grpc.RpcError, match="fuzziness"):
        found("Lisbon", mode=reader_pb2.SEARCH_MODE_TEXT, max_edits=1)
    with pytest.raises(grpc.RpcError, match="text"):
        found("")
