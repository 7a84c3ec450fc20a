"""The order of a segment's rows: those of one owner side by side, so that its scope is read as one piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentmem.core.turns import give_turn
from agentmem.replica.facets import Facets
from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_array

# The memories of a user together, of these those of an agent, and of these those of a session.
OWNER_FIELDS = ("user_id", "agent_id", "session_id")


def owner_order(facets: Facets, ordinals: OrdinalArray) -> npt.NDArray[np.intp]:
    """The places of some ordinals in the order of their owners, [n]; those of one session ascend.

    Args:
        ordinals: uint64 [n], distinct.
    """
    numbers = [_numbers(facets.having(field), ordinals) for field in reversed(OWNER_FIELDS)]
    return np.lexsort((ordinals, *numbers))


def _numbers(having: list[int | OrdinalSet], ordinals: OrdinalArray) -> npt.NDArray[np.int64]:
    """The place in ``having`` of where each ordinal is, int64 [n]; -1 for one that is nowhere."""
    numbers = np.full(len(ordinals), -1, dtype=np.int64)
    several = {}
    for place, each in enumerate(having):
        if isinstance(each, OrdinalSet):
            several[place] = ordinal_array(each)
            give_turn()
    alone = {place: each for place, each in enumerate(having) if not isinstance(each, OrdinalSet)}
    known = np.concatenate([np.array([*alone.values()], dtype=np.uint64), *several.values()])
    if not len(known):
        return numbers
    places = np.repeat([*alone, *several], [*(1 for _ in alone), *(len(each) for each in several.values())])
    order = np.argsort(known)
    found = order[np.minimum(known[order].searchsorted(ordinals), len(known) - 1)]
    here = known[found] == ordinals
    numbers[here] = places[found[here]]
    return numbers
