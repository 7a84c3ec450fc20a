"""What a search is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentmem.core.filters import Filter
from agentmem.core.records import FloatVector
from agentmem.replica.fuzziness import ANY_FUZZINESS, Fuzziness
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.ranking import Weights

DEFAULT_HALF_LIFE_US = 30 * 24 * 3600 * 1_000_000

Mode = Literal["hybrid", "semantic", "text", "fuzzy", "exact"]
# Modes that look at words alone, and need some.
WORD_MODES: frozenset[Mode] = frozenset({"text", "fuzzy", "exact"})
Order = Literal["score", "newest", "oldest"]
EVEN_WEIGHTS = Weights()
# Not to be changed.
NONE_EXCLUDED = OrdinalSet()


@dataclass(slots=True)
class SearchQuery:
    """A checked search request. Not changed once it is searched with.

    Attributes:
        text: empty for a search by vector alone, and for a hybrid one by recency and importance alone.
        vector: float32 [the namespace's dimension], unit length; None when there is none.
        filter: None for all memories.
        top_k: at least 1.
        scope_key: by which is kept what the filter leaves; None for what is not kept.
        now_us: what has expired by then is not found; recency counts from then.
        excluded: ordinals that are not to be found.
        fuzziness: of fuzzy alone.
        min_score: what has a lower score is left out.
        order: of the hits. The modes of words find the newest or oldest of all that they can find, the others
            put the best in that order.
        weights, half_life_us, conversational: for hybrid alone.
        explain: whether hits have their signals.
    """

    namespace: str
    text: str
    vector: FloatVector | None
    mode: Mode
    filter: Filter | None
    top_k: int
    now_us: int
    excluded: OrdinalSet = NONE_EXCLUDED
    fuzziness: Fuzziness = ANY_FUZZINESS
    min_score: float | None = None
    order: Order = "score"
    weights: Weights = EVEN_WEIGHTS
    half_life_us: int = DEFAULT_HALF_LIFE_US
    conversational: bool = True
    explain: bool = False
    scope_key: tuple[str, bytes] | None = None
