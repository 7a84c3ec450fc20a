"""The text index: what counts as a word, and an index on disk that is never trusted more than the store."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from memories import Replica, make_memory

from agentmem.replica.fuzziness import Fuzziness
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.text import TextIndex
from agentmem.replica.text_hits import TextHits
from agentmem.replica.words import DocumentTokens, query_tokens

CITIES = ["Porto", "Lisbon", "Berlin", "Vienna", "Oslo", "Athens", "Rome", "Madrid"]


def build(folder: Path, contents: list[str], number: int = 1, first_ordinal: int = 1) -> TextIndex:
    index = TextIndex(folder)
    for ordinal, content in enumerate(contents, start=first_ordinal):
        index.add(number, ordinal, content)
    index.commit()
    return index


def find(index: TextIndex, text: str, count: int, number: int = 1, top_k: int = 10) -> list[int]:
    allowed = OrdinalSet(range(1, 1000))
    ordinals: list[int] = index.searcher().search(number, count, text, top_k, allowed).ordinals.tolist()
    return ordinals


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("She was running along the beach", "run"),
        ("two dogs", "Who has a DOG?"),
        ("un café à Zürich", "cafe in ZURICH"),
        ("Ana's cat", "Ana"),
        ("我在北京大学学习", "北京"),
        ("我在北京大学学习", "大学"),
        ("我在北京大学学习", "京"),
        ("她喜欢喝茶。", "茶"),
        ("东京タワーに行った", "タワー"),
        ("ひらがなを読む", "がな"),
        ("저는 서울에 살아요", "서울"),
        ("ＡＢＣ１２３", "abc123"),
        ("ﾀﾜｰ", "タワー"),
        ("iPhone手机", "手机"),
        ("iPhone手机", "iphone"),
        ("Пётр любит чай", "петр"),
        ("Η Ελλάδα, καλημέρα", "ΚΑΛΗΜΕΡΑ"),
        ("مُحَمَّد قَرَأَ", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("ge\u00adbur\u00adtstag", "geburtstag"),
        ("が", "か\u3099"),
        ("हिन्दी", "हिन्दी"),
        # Stop words count when there is nothing else.
        ("To be, or not to be", "to be or not to be"),
    ],
)
def test_found(tmp_path: Path, content: str, query: str) -> None:
    index = build(tmp_path / "text", [content])
    assert find(index, query, 1) == [1]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("She was running", "walk"),
        ("the cat is here", "where is the dog"),  # shares stop words only
        ("北京", "京北"),
        ("北上，东京", "北京"),  # both characters, but not next to each other
        ("かき", "がき"),
        ("anything", ""),
        ("anything", "?! …"),
    ],
)
def test_not_found(tmp_path: Path, content: str, query: str) -> None:
    index = build(tmp_path / "text", [content])
    assert find(index, query, 1) == []


def test_tokens_of_a_document_and_of_a_question() -> None:
    assert DocumentTokens.of("The dogs 北京大").body == ["the", "dog", "北", "京", "大", "北京", "京大"]
    assert query_tokens("the dogs and the dog 北京大") == ["dog", "北京", "京大"]
    assert DocumentTokens.of("x" * 300 + " y").body == ["y"]  # no word is that long


def test_a_search_stays_in_its_namespace(tmp_path: Path) -> None:
    index = build(tmp_path / "text", ["a red house", "a blue house"])
    index.add(11, 100, "a red house")  # 11 begins with 1
    index.commit()
    assert find(index, "house", 2) == [2, 1]
    assert find(index, "house", 1, number=11) == [100]


def test_other_namespaces_leave_the_scores_alone(tmp_path: Path) -> None:
    contents = [f"{CITIES[n % 8]} {CITIES[n % 3]} trip {n}" for n in range(200)]

    def hits(index: TextIndex) -> TextHits:
        allowed = OrdinalSet(range(1, 201))
        return index.searcher().search(1, 200, "a trip to Oslo or Porto", 200, allowed)

    alone = build(tmp_path / "alone", contents)
    crowded = build(tmp_path / "crowded", contents)
    for ordinal in range(1000, 3000):
        crowded.add(2, ordinal, f"{CITIES[ordinal % 5]} Oslo trip {ordinal}")
    crowded.commit()

    assert hits(crowded).ordinals.tolist() == hits(alone).ordinals.tolist()
    np.testing.assert_allclose(hits(crowded).scores, hits(alone).scores, rtol=1e-4)


@pytest.mark.parametrize("matching", [1, 5, 40, 400, 1500])
def test_a_filter_leaves_no_gap(tmp_path: Path, matching: int) -> None:
    """Every way to apply a filter gives what filtering all hits gives."""
    random = np.random.default_rng(matching)
    contents = [" ".join(random.choice(CITIES, random.integers(1, 6))) for _ in range(2000)]
    searcher = build(tmp_path / "text", contents).searcher()
    allowed = OrdinalSet(random.choice(np.arange(1, 2001), matching, replace=False).tolist())
    everything = OrdinalSet(range(1, 2001))

    all_hits = searcher.search(1, 2000, "Oslo and Rome", 2000, everything)
    expected = [ordinal for ordinal in all_hits.ordinals.tolist() if ordinal in allowed]
    for top_k in (1, 10, 100):
        found = searcher.search(1, 2000, "Oslo and Rome", top_k, allowed)
        assert len(found.ordinals) == min(top_k, len(expected))
        np.testing.assert_allclose(
            found.scores, [all_hits.scores[list(all_hits.ordinals).index(o)] for o in found.ordinals], 1e-5
        )
        assert (
            found.scores.min(initial=np.inf)
            >= all_hits.scores[list(all_hits.ordinals).index(expected[:top_k][-1])] * (1 - 1e-5)
            if expected
            else True
        )


@pytest.mark.parametrize("mode", ["text", "fuzzy"])
def test_a_long_question_finds_all_that_share_a_word_with_it(tmp_path: Path, mode: str) -> None:
    rare = [f"q{number}w{'xyz'[number % 3] * 9}" for number in range(100)]
    common = ["breakfast", "茶馆"]
    index = build(
        tmp_path / "text", [*rare, *(f"{word} {number}" for word in common for number in range(50))]
    )
    question = " ".join([*common, *rare])
    allowed = OrdinalSet(range(101, 201))
    searcher = index.searcher()
    if mode == "text":
        found = searcher.search(1, 200, question, 100, allowed)
    else:
        found = searcher.search_fuzzy(1, 200, question, 100, allowed, Fuzziness(0))
    assert len(found.ordinals) == 100


def test_deleted_documents_are_gone(tmp_path: Path) -> None:
    index = build(tmp_path / "text", ["one house", "two houses", "three houses"])
    index.delete(2)
    index.add(1, 4, "four houses")
    index.delete(4)  # added and deleted in one commit
    index.commit()
    assert find(index, "house", 2) == [3, 1]
    assert index.searcher().ordinals().tolist() == [1, 3]


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path) -> None:
    index = build(tmp_path / "text", ["one house", "two houses"])
    index.add(1, 3, "not committed")
    index.close()
    index = TextIndex(tmp_path / "text")
    assert index.indexed.tolist() == [1, 2]
    index.add(1, 3, "three houses")
    index.commit()
    assert find(index, "house", 3) == [3, 2, 1]


def damage_nothing(folder: Path) -> None:
    """The case that keeps the others honest."""


def cut_files_short(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-20])


def remove_segments(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "meta.json":
            path.unlink()


def garble_meta(folder: Path) -> None:
    (folder / "meta.json").write_text("{")


def overwrite_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"\xff" * path.stat().st_size)


def lose_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def lose_positions(folder: Path) -> None:
    """tantivy misses them in the first search only."""
    next(folder.glob("*.pos")).unlink()


def lose_deletions(folder: Path) -> None:
    next(folder.glob("*.del")).unlink()


def count_too_many(folder: Path) -> None:
    """tantivy panics, which is no Exception."""
    meta = folder / "meta.json"
    meta.write_text(re.sub(r'"max_doc": [0-9]+', '"max_doc": 900', meta.read_text()))


def flip_one_bit(folder: Path) -> None:
    path = max(folder.glob("*.idx"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing,
        cut_files_short,
        remove_segments,
        garble_meta,
        lose_meta,
        lose_positions,
        lose_deletions,
        count_too_many,
        overwrite_everything,
        flip_one_bit,
    ],
)
def test_a_damaged_folder_is_built_again_from_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.put([make_memory(str(n), f"house {n}") for n in range(21)]))
        revision = replica.delete(["20"])
        replica.wait_for_revision(revision)
    damage(replica.index_path / "text")
    with Replica(tmp_path) as replica:
        view = replica.wait_for_revision(revision)
        assert len(replica.search(view, "houses", mode="text", top_k=50)) == 20
        assert replica.search(view, "7", mode="text") == ["7"]
    rebuilt = [record.message for record in caplog.records if "built again" in record.message]
    assert len(rebuilt) == int(damage is not damage_nothing)


def test_a_document_without_words_makes_a_whole_segment(tmp_path: Path) -> None:
    build(tmp_path / "text", ["?!"]).close()
    assert TextIndex(tmp_path / "text").indexed.tolist() == [1]


def garble_identity(folder: Path) -> None:
    (folder / "index.json").write_bytes(b"\xff\xfe\x00")


def lose_identity(folder: Path) -> None:
    (folder / "index.json").unlink()


def put_a_folder_for_the_identity(folder: Path) -> None:
    lose_identity(folder)
    (folder / "index.json").mkdir()


def put_a_file_for_everything(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def put_a_file_for_the_text(folder: Path) -> None:
    put_a_file_for_everything(folder / "text")


def put_a_file_for_the_segments(folder: Path) -> None:
    put_a_file_for_everything(folder / "segments")


def put_a_dead_link_for_the_segments(folder: Path) -> None:
    shutil.rmtree(folder / "segments")
    (folder / "segments").symlink_to(folder / "nowhere")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_nothing, ""),
        (shutil.rmtree, ""),
        (garble_identity, "index.json cannot be read: 'utf-8' codec"),
        (lose_identity, "index.json cannot be read: [Errno 2]"),
        (put_a_folder_for_the_identity, "index.json cannot be read: [Errno 21]"),
        (put_a_file_for_everything, "index.json cannot be read: [Errno 20]"),
        (put_a_file_for_the_text, "text is not a folder"),
        (put_a_file_for_the_segments, "segments is not a folder"),
        (put_a_dead_link_for_the_segments, "segments is not a folder"),
    ],
)
def test_an_unreadable_folder_of_indexes_is_built_again_and_the_reason_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], reason: str
) -> None:
    with Replica(tmp_path) as replica:
        revision = replica.put([make_memory(str(n), f"house {n}") for n in range(20)])
        replica.wait_for_revision(revision)
    damage(replica.index_path)
    for _ in range(2):  # nothing is left to complain about the second time
        with Replica(tmp_path) as replica:
            view = replica.wait_for_revision(revision)
            assert len(replica.search(view, "houses", mode="text", top_k=50)) == 20
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == int(bool(reason))
    assert all(reason in line for line in said)


def test_a_restart_follows_from_where_the_index_was(tmp_path: Path) -> None:
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.put([make_memory(str(n), f"house {n}") for n in range(20)]))
    replica = Replica(tmp_path)  # not started: the store moves on without it
    replica.put([make_memory("3", "a boat", version=2), make_memory("new", "a new house")])
    revision = replica.delete(["5"])
    with replica:
        view = replica.wait_for_revision(revision)
        found = replica.search(view, "house", mode="text", top_k=50)
        assert sorted(found) == sorted({str(n) for n in range(20)} - {"3", "5"} | {"new"})
        assert replica.search(view, "boat", mode="text") == ["3"]
