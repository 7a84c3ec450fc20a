"""Searches for a phrase: the words as they are, one behind the other."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from cluster import Stubs

from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.text import TextIndex
from agentmem.replica.text_hits import TextHits
from agentmem.replica.words import phrase_tokens
from agentmem.v1 import consistency_pb2, memory_pb2, reader_pb2, writer_pb2

ALL = OrdinalSet(range(1, 10_000))


def build(folder: Path, contents: list[str], number: int = 1) -> TextIndex:
    index = TextIndex(folder)
    for ordinal, content in enumerate(contents, start=1):
        index.add(number, ordinal, content)
    index.commit()
    return index


def find(index: TextIndex, text: str, count: int, top_k: int = 10, allowed: OrdinalSet = ALL) -> TextHits:
    return index.searcher().search_phrase(1, count, text, top_k, allowed)


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ("The red house on the hill", "red house"),
        ("The red house on the hill", "RED  House"),
        ("The red house on the hill", "house on the hill"),
        ("a well-known café", "well known cafe"),
        ("To be, or not to be", "to be or not to be"),
        ("that that is, is", "that that is is"),
        ("İstanbul in spring", "istanbul in"),
        ("house", "house"),
        ("我在北京大学学习", "北京大学"),
        ("我在北京大学学习", "京"),
        ("我买了iPhone手机", "买了 iphone 手机"),
        ("我买了 iPhone 手机", "iPhone手机"),
        ("他说：你好，世界。", "你好，世界"),
        ("他说：你好，世界。", "你好、世界"),
        ("ジョン・レノンが好き", "ジョンレノン"),
        ("型番はＡＢＣ１２３です", "abc123です"),
        ("ｺｰﾋｰを飲む", "コーヒーを"),
        ("서울 시청에서 만나", "시청에서 만나"),
        ("第3次会议", "第３次"),
        ("Straße 7", "strasse 7"),
    ],
)
def test_found(tmp_path: Path, content: str, phrase: str) -> None:
    index = build(tmp_path / "text", [content])
    assert find(index, phrase, 1).ordinals.tolist() == [1]


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ("The red house", "house red"),
        ("The red old house", "red house"),
        ("The red houses", "red house"),  # no stems
        ("running", "run"),
        ("the hill", "hill the"),
        ("on the hill", "on a hill"),  # stop words count
        ("that is", "that that is"),
        ("北上，东京", "上东"),  # not one run of characters
        ("北京大学", "北大"),
        ("京北", "北京"),
        ("他说：你好，世界。", "你好世界"),
        ("anything", "?!"),
        ("x" * 300 + " y", "x" * 300),
        ("a " + "x" * 300 + " b", "a b"),
    ],
)
def test_not_found(tmp_path: Path, content: str, phrase: str) -> None:
    index = build(tmp_path / "text", [content])
    assert find(index, phrase, 1).ordinals.tolist() == []


def test_positions_of_words_and_characters() -> None:
    assert phrase_tokens("In 北京，东京 ok!") == [
        (0, "in"),
        (1, "北"),
        (2, "京"),
        (4, "东"),
        (5, "京"),
        (6, "ok"),
    ]


def test_a_phrase_stays_in_its_namespace_and_weighs_as_if_alone(tmp_path: Path) -> None:
    contents = [f"the {'red' if n % 3 else 'blue'} house number {n % 7}" for n in range(200)]
    alone = build(tmp_path / "alone", contents)
    crowded = build(tmp_path / "crowded", contents)
    for ordinal in range(1000, 3000):
        crowded.add(11, ordinal, f"a red house number {ordinal % 5}")  # 11 begins with 1
    crowded.commit()
    expected = find(alone, "red house number 5", 200, top_k=200)
    found = find(crowded, "red house number 5", 200, top_k=200)
    assert expected.ordinals.tolist() == found.ordinals.tolist()
    assert found.ordinals.tolist() == [n + 1 for n in reversed(range(200)) if n % 3 and n % 7 == 5]
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


@pytest.mark.parametrize("matching", [3, 60, 900])
def test_a_filter_leaves_no_gap(tmp_path: Path, matching: int) -> None:
    random = np.random.default_rng(matching)
    contents = [" ".join(random.choice(["oslo", "rome", "bern"], random.integers(2, 7))) for _ in range(1000)]
    index = build(tmp_path / "text", contents)
    allowed = OrdinalSet(random.choice(np.arange(1, 1001), matching, replace=False).tolist())
    having = {ordinal for ordinal in allowed if "oslo rome" in contents[ordinal - 1]}
    for top_k in (1, 10, 1000):
        found = find(index, "Oslo, Rome", 1000, top_k, allowed).ordinals.tolist()
        assert len(found) == min(top_k, len(having))
        assert set(found) <= having


def test_over_the_network(writer: Stubs, replica: Stubs, namespace: str) -> None:
    contents = ["the red house", "a house of red brick", "北京大学的红房子"]
    added = writer.writer.AddMemories(
        writer_pb2.AddMemoriesRequest(
            namespace=namespace,
            memories=[
                memory_pb2.Memory(id=str(number), content=content) for number, content in enumerate(contents)
            ],
        ),
        timeout=30,
    )

    def found(text: str) -> list[str]:
        request = reader_pb2.SearchMemoriesRequest(
            namespace=namespace,
            text=text,
            mode=reader_pb2.SEARCH_MODE_EXACT,
            consistency=consistency_pb2.Consistency(min_revision=added.revision),
        )
        response = replica.reader.SearchMemories(request, timeout=30)
        assert all(hit.score > 0 for hit in response.hits)
        return [hit.memory.id for hit in response.hits]

    assert found("Red House") == ["0"]
    assert found("house red") == []
    assert found("大学的") == ["2"]
    with pytest.raises(grpc.RpcError, match="text"):
        found("  ")
