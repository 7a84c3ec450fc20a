"""The postings in memory: the same scores as the index has, on disk never trusted more than the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from memories import Replica, make_memory

from agentmem.replica import postings, word_scores
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array, places_of
from agentmem.replica.postings import Postings
from agentmem.replica.postings_file import read_postings
from agentmem.replica.text import TextIndex, TextSearcher
from agentmem.replica.text_hits import SCORED_PLAN, TextHits

WORDS = ["boat", "boats", "harbour", "blue", "tea", "garden", "Train", "late", "winter", "京都", "北京"]
COUNT = 300


def contents(seed: int) -> list[str]:
    """Of very different lengths, with words that are there often."""
    random = np.random.default_rng(seed)
    lengths = random.choice([0, 1, 3, 8, 30, 45, 70, 400], COUNT)
    return [" ".join(random.choice(WORDS, length)) for length in lengths]


def live(*ordinals: int) -> OrdinalArray:
    return np.array(ordinals, dtype=np.uint64)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, searcher: TextSearcher, text: str, top_k: int, allowed: OrdinalSet
) -> tuple[TextHits, TextHits]:
    """What the postings find, and what the index does."""
    found = []
    for by_postings in (True, False):
        monkeypatch.setattr(word_scores, "scores_all", lambda *_, pays=by_postings: pays)
        found.append(searcher.search(1, COUNT, text, top_k, allowed))
        assert (found[-1].plan == SCORED_PLAN) is by_postings
    return found[0], found[1]


@pytest.mark.parametrize("allowed", [OrdinalSet(range(1, COUNT + 1)), OrdinalSet(range(1, COUNT, 7))])
def test_scores_are_those_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: OrdinalSet
) -> None:
    index = TextIndex(tmp_path / "text")
    for ordinal, content in enumerate(contents(1), start=1):
        index.add(1, ordinal, content)
        if ordinal % 70 == 0:
            index.commit()
    # Of another namespace, much longer.
    index.add(2, COUNT + 1, "boat " * 5000)
    index.commit()
    searcher = index.searcher()
    for text in ("boat", "blue tea", "winter train late garden", "京都 boats", "none of these"):
        scored, fetched = both_ways(monkeypatch, searcher, text, COUNT, allowed)
        # What differs in the last digit may come in another order.
        np.testing.assert_allclose(scored.scores, fetched.scores, rtol=1e-5)
        score_of = dict(zip(fetched.ordinals.tolist(), fetched.scores.tolist(), strict=True))
        assert scored.scores.tolist() == pytest.approx([score_of[each] for each in scored.ordinals.tolist()])
        best, _ = both_ways(monkeypatch, searcher, text, 10, allowed)
        assert best.ordinals.tolist() == scored.ordinals.tolist()[:10]


def test_what_was_deleted_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for views that had it."""
    monkeypatch.setattr(postings, "MIN_COMPACTED_DOCUMENTS", 10)
    index = TextIndex(tmp_path / "text")
    for ordinal, content in enumerate(contents(2), start=1):
        index.add(1, ordinal, content)
    index.commit()
    before = index.searcher()
    known = before.search(1, COUNT, "boat tea", COUNT, OrdinalSet(range(1, COUNT + 1)))
    kept = OrdinalSet(range(2, COUNT, 3))
    for ordinal in range(1, COUNT + 1):
        if ordinal not in kept:
            index.delete(ordinal)
    index.add(1, COUNT + 1, "a blue boat")
    index.commit()
    index.close()
    assert read_postings(tmp_path / "text" / "postings").ordinals.tolist() == [*kept, COUNT + 1]

    after = before.search(1, COUNT, "boat tea", COUNT, OrdinalSet(range(1, COUNT + 1)))
    assert set(after.ordinals.tolist()) == set(known.ordinals.tolist())
    kept.add(COUNT + 1)
    scored, fetched = both_ways(monkeypatch, index.searcher(), "boat tea", COUNT, kept)
    assert set(scored.ordinals.tolist()) == set(fetched.ordinals.tolist())
    assert COUNT + 1 in scored.ordinals.tolist()


def test_after_a_restart_only_what_is_new_is_added(tmp_path: Path) -> None:
    index = TextIndex(tmp_path / "text")
    for ordinal in (1, 2, 3):
        index.add(1, ordinal, f"house {ordinal}")
    index.commit()
    index.close()
    index = TextIndex(tmp_path / "text")
    assert list(index.keep_only(live(1, 3, 4))) == [1, 3]
    index.add(1, 4, "four houses")
    index.commit()
    hits = index.searcher().search(1, 3, "house", 10, OrdinalSet((1, 3, 4)))
    assert hits.ordinals.tolist() == [4, 3, 1]
    assert hits.plan == SCORED_PLAN


def test_ordinals_that_come_again_are_of_the_new_documents(tmp_path: Path) -> None:
    """As with a store that was put back to an older state."""
    index = TextIndex(tmp_path / "text")
    for ordinal in (1, 2, 3):
        index.add(1, ordinal, f"house {ordinal}")
    index.commit()
    index.close()
    index = TextIndex(tmp_path / "text")
    assert list(index.keep_only(live(1))) == [1]
    index.commit()
    for ordinal in (2, 3):
        index.add(1, ordinal, f"garden {ordinal}")
    index.commit()
    allowed = OrdinalSet((1, 2, 3))
    for text, expected in (("house", [1]), ("garden", [3, 2])):
        assert index.searcher().search(1, 3, text, 10, allowed).ordinals.tolist() == expected
        assert index.searcher().ordinals().tolist() == [1, 2, 3]


def test_a_document_that_is_missing_between_others_is_added(tmp_path: Path) -> None:
    """As no run of the indexer leaves it; documents are only added behind all others."""
    index = TextIndex(tmp_path / "text")
    for ordinal in (1, 3):
        index.add(1, ordinal, f"house {ordinal}")
    index.commit()
    index.close()
    index = TextIndex(tmp_path / "text")
    kept = index.keep_only(live(1, 2, 3))
    for ordinal in (1, 2, 3):
        if ordinal not in kept:
            index.add(1, ordinal, f"house {ordinal}")
    index.commit()
    allowed = OrdinalSet((1, 2, 3))
    assert index.searcher().search(1, 3, "house", 10, allowed).ordinals.tolist() == [3, 2, 1]
    assert index.searcher().search(1, 3, "2", 10, allowed).ordinals.tolist() == [2]
    assert index.searcher().ordinals().tolist() == [1, 2, 3]


def test_what_is_asked_for_between_documents_changes_nothing() -> None:
    """Who asks for a term puts its recent documents into the bitmap, also while one is being added."""
    documents = [content.split() for content in contents(3)]
    expected, asked = Postings(), Postings()
    for ordinal, tokens in enumerate(documents, start=1):
        expected.add(ordinal, "1|", tokens)
        asked.add(ordinal, "1|", tokens)
        # Not shown yet: it must neither be found nor lost.
        before = sum("boat" in each for each in documents[: ordinal - 1])
        assert asked.frequency("1|boat") == before
        if ordinal % 7 == 0:
            assert asked.frequency("1|tea") == sum("tea" in each for each in documents[: ordinal - 1])
        asked.show()
        assert asked.frequency("1|boat") == before + ("boat" in tokens)
    ordinals, lengths, terms = asked.contents()
    assert terms == expected.contents()[2]
    assert np.array_equal(ordinals, expected.ordinals)
    assert np.array_equal(lengths, expected.contents()[1])
    assert asked.tokens == expected.tokens == sum(map(len, documents))


def test_recent_documents_are_taken_up_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "MAX_RECENT_DOCUMENTS", 10)
    recent = Postings()
    for ordinal in range(1, 26):
        recent.add(ordinal, "1|", ["boat", "boat"])
    recent.show()
    allowed = OrdinalSet(range(1, 26))
    assert recent.frequency("1|boat") == len(allowed)
    hits = recent.hits([("1|boat", 1.0)], allowed, recent.length_costs())
    assert hits.ordinals.tolist() == list(allowed)
    assert len(set(hits.scores.tolist())) == 1


def test_how_often_a_document_has_a_term_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each time that postings take up: of one document, of several, of some that were there before."""
    monkeypatch.setattr(postings, "MAX_RECENT_DOCUMENTS", 4)
    times = [0, 3, 1, 1, 2, 0, 0, 0, 5, 300, 1]
    counted = Postings()
    for ordinal, count in enumerate(times, start=1):
        counted.add(ordinal, "1|", ["boat"] * count + ["tea"])
    _, _, terms = counted.contents()
    levels = [{level} if isinstance(level, int) else set(level) for level in terms["1|boat"]]
    assert levels == [
        {ordinal for ordinal, count in enumerate(times, start=1) if count > level}
        for level in range(postings.MAX_FREQUENCY)
    ]
    assert len(terms["1|tea"]) == 1


def test_a_long_question_scores_all_that_share_a_word_with_it() -> None:
    """Also those that have none of its rarest words."""
    index = TextIndex(None)
    for ordinal in range(1, 201):
        index.add(1, ordinal, f"boat w{ordinal}" if ordinal <= 80 else "boat")
    index.commit()
    words = index.searcher().words
    question = ["boat", *(f"w{number}" for number in range(1, 81))]
    allowed = OrdinalSet(range(1, 201))
    hits, places, scores = words.scored(words.weighed(1, 200, question), allowed, ordinal_array(allowed))
    assert len(hits.counts) == len(places) == 64
    assert scores.all()
    assert scores[:80].min() > scores[80:].max()


@pytest.mark.parametrize("known", [[5, 6, 7, 8], [2, 5, 7, 9], [5, 7], [5, 6, 7]])
def test_places_among_ordinals_with_and_without_gaps(known: list[int]) -> None:
    wanted = live(5, 7)
    assert live(*known)[places_of(wanted, live(*known))].tolist() == [5, 7]


def damage_nothing(file: Path) -> None:
    """The case that keeps the others honest."""


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip_one_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def garble_header(file: Path) -> None:
    file.write_bytes(b"\xff" + file.read_bytes())


def change_format(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"format": 1', b'"format": 9'))


@pytest.mark.parametrize("damage", [damage_nothing, cut_short, flip_one_bit, garble_header, change_format])
def test_a_damaged_file_is_made_again_from_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    with Replica(tmp_path) as replica:
        revision = replica.put([make_memory(str(number), f"house {number}") for number in range(20)])
        replica.wait_for_revision(revision)
    damage(replica.index_path / "text" / "postings")
    with Replica(tmp_path) as replica:
        view = replica.wait_for_revision(revision)
        assert len(replica.search(view, "houses", mode="text", top_k=50)) == 20
        assert replica.search(view, "7", mode="text") == ["7"]
    rebuilt = [record.message for record in caplog.records if "built again" in record.message]
    assert len(rebuilt) == int(damage is not damage_nothing)


def test_what_came_behind_the_file_is_read_from_the_store(tmp_path: Path) -> None:
    """As when the process was killed."""
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.put([make_memory(str(n), f"house {n}") for n in range(10)]))
    file = replica.index_path / "text" / "postings"
    older = file.read_bytes()
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.put([make_memory(str(n), f"house {n}") for n in range(10, 20)]))
        revision = replica.delete(["3"])
        replica.wait_for_revision(revision)
    file.write_bytes(older)
    with Replica(tmp_path) as replica:
        view = replica.wait_for_revision(revision)
        assert view.text is not None
        assert view.text.documents == 19
        assert len(replica.search(view, "houses", mode="text", top_k=50)) == 19
        assert replica.search(view, "17", mode="text") == ["17"]
        assert replica.search(view, "3", mode="text") == []
