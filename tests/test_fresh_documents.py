"""What the text index has not committed yet is found like what it has, whatever is asked for."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from memories import Replica, make_memory

from agentmem.replica import text as text_module
from agentmem.replica.fresh_documents import FreshDocument, FreshDocuments
from agentmem.replica.fuzziness import Fuzziness
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.text import TextIndex, TextSearcher
from agentmem.replica.text_hits import TextHits
from agentmem.replica.word_scores import WordScores

WORDS = ["boat", "boats", "harbour", "the", "a", "red", "quay", "sails", "北京", "大学", "茶", "coat", "and"]
COUNT = 300
# Each asks in its own way; documents, and ordinals that may be found, come behind.
ASK: dict[str, Callable[[TextSearcher, str, int, OrdinalSet], TextHits]] = {
    "words": lambda searcher, text, count, allowed: searcher.search(1, count, text, COUNT, allowed),
    "phrase": lambda searcher, text, count, allowed: searcher.search_phrase(1, count, text, COUNT, allowed),
    "misspelt": lambda searcher, text, count, allowed: searcher.search_fuzzy(
        1, count, text, COUNT, allowed, Fuzziness(prefix=True)
    ),
}
TEXTS = [
    "red boat",
    "the quay and the boat",
    "harbuor baot",
    "北京大学",
    "大学 boat",
    "boat",
    "a a",
    "zzz",
    "茶。茶",
]


def scores(hits: TextHits) -> dict[int, float]:
    return dict(zip(hits.ordinals.tolist(), hits.scores.tolist(), strict=True))


# Fresh documents have one length for words and phrases, of all their tokens.
@pytest.mark.parametrize(("mode", "tolerance"), [("words", 0.05), ("phrase", 0.15), ("misspelt", 0.15)])
def test_a_commit_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, tolerance: float
) -> None:
    monkeypatch.setattr(WordScores, "pays", lambda *_: False)  # the postings have everything anyway
    drawn = random.Random(7)
    index = TextIndex(tmp_path / "text")
    ordinals = range(1, 2 * COUNT, 2)
    for ordinal in ordinals:
        content = drawn.choice(" 。,").join(drawn.choices(WORDS, k=drawn.randrange(1, 12)))
        index.add(1, ordinal, content)
        index.add(11, ordinal + 1, content)  # 11 begins with 1
        if ordinal == COUNT + 1:
            index.commit()
    gone = set(drawn.sample(ordinals, 4))
    for ordinal in gone:
        index.delete(ordinal)
    allowed = OrdinalSet(ordinals) - OrdinalSet(gone)
    before = index.searcher()
    found = {text: ASK[mode](before, text, len(allowed), allowed) for text in TEXTS}
    index.commit()
    after = index.searcher()
    assert not found["zzz"].ordinals.size
    assert sum(len(hits.ordinals) for hits in found.values()) > 100
    for text, hits in found.items():
        expected = scores(ASK[mode](after, text, len(allowed), allowed))
        assert sorted(hits.ordinals.tolist()) == sorted(expected)
        assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)
        np.testing.assert_allclose(
            [expected[each] for each in scores(hits)], [*scores(hits).values()], rtol=tolerance
        )
    index.close()


def test_a_phrase_is_counted_where_it_overlaps_itself() -> None:
    fresh = FreshDocuments()
    fresh.add(FreshDocument(1, "", "1|a 1|a 1|a - 1|a 1|ab"))
    assert fresh.counts([(0, "1|a")], OrdinalSet((1,))) == {1: 4}
    assert fresh.counts([(0, "1|a"), (1, "1|a")], OrdinalSet((1,))) == {1: 2}
    assert fresh.counts([(0, "1|a"), (2, "1|a")], OrdinalSet((1,))) == {1: 2}
    assert fresh.counts([(0, "1|a"), (1, "1|b")], OrdinalSet((1,))) == {}
    assert fresh.counts([(0, "1|a")], OrdinalSet((2,))) == {}


def test_what_comes_while_a_commit_is_on_its_way_is_found_before_and_after_it(
    tmp_path: Path,
) -> None:
    is_done = threading.Event()
    index = TextIndex(tmp_path / "text", is_done.set)
    index.add(1, 1, "a red boat")
    index.begin_commit()
    index.add(1, 2, "another red boat")

    def found() -> list[int]:
        return sorted(
            index.searcher().search_phrase(1, 2, "red boat", 9, OrdinalSet((1, 2))).ordinals.tolist()
        )

    assert found() == [1, 2]
    assert is_done.wait(30)
    index.take_up()
    assert index.has_committed
    assert found() == [1, 2]
    assert index.searcher().documents == 2
    assert index.is_changed
    index.close()
    # The postings on disk have what no commit had, so it is added to the index alone.
    index = TextIndex(tmp_path / "text")
    assert index.keep_only(np.array([1, 2], dtype=np.uint64)) == OrdinalSet((1,))
    index.add(1, 2, "another red boat")
    index.commit()
    assert found() == [1, 2]
    assert index.searcher().words.frequency("1|boat") == index.searcher().documents == 2
    assert index._postings._postings.ordinals.tolist() == [1, 2]
    index.close()


def test_fresh_documents_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_FRESH_DOCUMENTS", 10)
    index = TextIndex(tmp_path / "text")
    for ordinal in range(1, 96):
        index.add(1, ordinal, f"boat {ordinal}")
        assert index.searcher().fresh_documents < 20
    assert index.searcher().ordinals().tolist() == list(range(1, 96))
    index.close()


def test_a_replica_commits_what_is_fresh_before_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_FRESH_S", 0.05)
    with Replica(tmp_path) as replica:
        replica.wait_for_revision(replica.put([make_memory("1", "a red boat")]))
        replica.wait_for(lambda view: view.text is not None and not view.text.fresh_documents)
