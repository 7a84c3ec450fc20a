"""Who has which value of a field, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from agentmem.core.filters import Condition, Value
from agentmem.replica.ordinals import OrdinalSet, ordinal_set
from agentmem.v1 import filter_pb2

# The value, or a tuple of a boolean: True == 1 in Python, but in metadata they are different values.
ValueKey = str | float | tuple[bool]
_FLAGS = {False: (False,), True: (True,)}


def key_of(value: Value) -> ValueKey:
    """Where the postings have a value."""
    return _FLAGS[value] if isinstance(value, bool) else value


def value_of(key: ValueKey) -> Value:
    """The value that stands at a key."""
    return key[0] if isinstance(key, tuple) else key


class ValuePostings:
    """The values of one field and the ordinals that have them.

    A value that only one ordinal has, such as an id, is kept as a plain int: a bitmap takes ten times that.
    """

    def __init__(self) -> None:
        self.present = OrdinalSet()
        self.by_value: dict[ValueKey, int | OrdinalSet] = {}

    def add(self, value: Value, ordinal: int) -> None:
        self._join(key_of(value), [ordinal])
        self.present.add(ordinal)

    def extend(self, texts: Iterable[str], ordinals: Sequence[int]) -> None:
        """Adds what several memories have in a field of texts; an empty text is none.

        Args:
            ordinals: of the memories, ascending.
        """
        having: defaultdict[str, list[int]] = defaultdict(list)
        for text, ordinal in zip(texts, ordinals, strict=True):
            having[text].append(ordinal)
        without = having.pop("", None)
        for text, owners in having.items():
            self._join(key_of(text), owners)
        if without is None:
            self.present.update(ordinals)
        elif having:
            self.present.update(*having.values())

    def _join(self, key: ValueKey, ordinals: list[int]) -> None:
        known = self.by_value.get(key)
        if isinstance(known, OrdinalSet):
            known.update(ordinals)
        elif known is None:
            self.by_value[key] = ordinals[0] if len(ordinals) == 1 else OrdinalSet(ordinals)
        elif [known] != ordinals:
            self.by_value[key] = OrdinalSet([known, *ordinals])

    def matching(self, condition: Condition) -> OrdinalSet:
        """The ordinals with a value that the condition holds for; may share memory with the postings."""
        if condition.operator == filter_pb2.OPERATOR_EXISTS:
            return self.present
        if condition.operator in (filter_pb2.OPERATOR_EQ, filter_pb2.OPERATOR_IN):
            keys = [key_of(value) for value in condition.values]
        else:
            # list() of a dict is one step to other threads, iterating over it is not.
            keys = [key for key in list(self.by_value) if condition.holds(value_of(key))]
        found = self._having(keys)
        sets = [posting for posting in found if isinstance(posting, OrdinalSet)]
        if len(sets) == len(found) == 1:
            return sets[0]
        return OrdinalSet([posting for posting in found if isinstance(posting, int)]).union(*sets)

    def having(self, condition: Condition) -> list[int | OrdinalSet]:
        """Who has each of the values of a condition with EQ or IN; not to be changed."""
        return self._having([key_of(value) for value in condition.values])

    def _having(self, keys: Sequence[ValueKey]) -> list[int | OrdinalSet]:
        return [posting for key in keys if (posting := self.by_value.get(key)) is not None]

    @classmethod
    def of(cls, by_value: dict[ValueKey, int | OrdinalSet]) -> ValuePostings:
        postings = cls()
        postings.by_value = by_value
        several = (each for each in by_value.values() if isinstance(each, OrdinalSet))
        alone = np.array([each for each in by_value.values() if isinstance(each, int)], dtype=np.uint64)
        postings.present = ordinal_set(alone).union(*several)
        return postings

    def cut_to(self, live: OrdinalSet) -> ValuePostings:
        """A copy without the ordinals that are not in ``live``."""
        kept = ValuePostings()
        kept.present = self.present & live
        for key, posting in self.by_value.items():
            if isinstance(posting, int):
                if posting in live:
                    kept.by_value[key] = posting
            elif cut := posting & live:
                kept.by_value[key] = cut if len(cut) > 1 else cut.min()
        return kept
