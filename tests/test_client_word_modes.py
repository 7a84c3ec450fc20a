"""The client's searches for phrases and for misspelt words."""

from __future__ import annotations

import asyncio

import pytest
from cluster import Cluster

from agentmem.client import AsyncClient, Client, Fuzziness, InvalidArgument, NewMemory, SearchMode


def test_phrases_and_misspelt_words(client: Client, shared_cluster: Cluster, namespace: str) -> None:
    session = client.session()
    contents = {
        "hill": "the red house on the hill",
        "brick": "a house of red brick",
        "zh": "我喜欢北京大学",
    }
    session.add_many(namespace, [NewMemory(content, id=name) for name, content in contents.items()])

    def found(text: str, mode: SearchMode | str, fuzziness: Fuzziness | None = None) -> set[str]:
        result = session.search(namespace, text, mode=mode, fuzziness=fuzziness)
        return {hit.memory.id for hit in result.hits}

    assert found("Red House", SearchMode.EXACT) == {"hill"}
    assert found("北京大学", "exact") == {"zh"}
    assert found("housse", SearchMode.FUZZY) == {"hill", "brick"}
    assert found("北东大学", "fuzzy") == {"zh"}
    assert found("housse", SearchMode.FUZZY, Fuzziness(max_edits=0)) == set()
    assert found("red bri", SearchMode.FUZZY, Fuzziness(prefix=True)) == {"hill", "brick"}
    assert found("bri", SearchMode.FUZZY, Fuzziness(prefix=True)) == {"brick"}
    with pytest.raises(InvalidArgument, match="fuzziness"):
        found("red", SearchMode.TEXT, Fuzziness())
    with pytest.raises(InvalidArgument, match="text"):
        found(" ", SearchMode.EXACT)

    async def in_batches() -> list[set[str]]:
        async with AsyncClient(shared_cluster.writer.address, timeout_s=30.0) as unbound:
            results = await asyncio.gather(
                *(
                    unbound.search(namespace, "kitchn housse", mode="fuzzy", fuzziness=Fuzziness(max_edits=n))
                    for n in (0, 1, 2) * 5
                )
            )
            return [{hit.memory.id for hit in result.hits} for result in results]

    shared_cluster.wait_settled()
    assert asyncio.run(in_batches()) == [set(), {"hill", "brick"}, {"hill", "brick"}] * 5
