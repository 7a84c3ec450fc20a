"""Whom a question names: memories of such a user count for more.

What Ana said of herself answers a question about Ana more often than what others said of her, and the text
of a turn often does not have the name of who said it.
"""

from __future__ import annotations

import re
from itertools import chain, pairwise

from agentmem.replica.scripts import runs
from agentmem.replica.stop_words import STOP_WORDS

# A fifth more. From a tenth to three tenths it makes little difference: DESIGN.md has the figures.
NAMED_GAIN = 1.2
# Of a question of 16 KiB the first ones.
MAX_NAMES = 256

_WORD = re.compile(r"[^\W_]+")
_CJK_LENGTHS = (2, 3, 4)


def names_in(text: str) -> list[str]:
    """What in a text may be a user_id, without repetitions.

    That is each word and each two words in a row, as they are written and in small letters; in CJK, two to
    four characters. Words that mean nothing alone, such as "will", are no names.
    """
    found: dict[str, None] = {}
    for of_cjk, run in runs(text):
        if of_cjk:
            places = range(min(len(run) - 1, MAX_NAMES))
            names = [run[at : at + size] for at in places for size in _CJK_LENGTHS]
        else:
            words = _WORD.findall(run)[: MAX_NAMES + 1]
            names = [word for word in words if word.lower() not in STOP_WORDS]
            names += [f"{first} {second}" for first, second in pairwise(words)]
        found.update(dict.fromkeys(chain.from_iterable((name, name.lower()) for name in names)))
        if len(found) >= MAX_NAMES:
            break
    return list(found)[:MAX_NAMES]
