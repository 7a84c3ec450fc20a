"""Telling scripts written without spaces (Chinese, Japanese, Korean) from those with."""

from __future__ import annotations

import re
import unicodedata
from operator import add

# Kana, Han with its extensions and compatibility forms, bopomofo, hangul syllables, and the marks that are
# part of a word: 々 〆 〇 ー.
_CJK = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U000323af"
)
# What may stand between two CJK characters of one word or name: white space and the dot in foreign names.
JOINERS = " \t\n\r\u30fb\u00b7"
# Dashes of all sorts are typed for the mark of a long vowel. The pattern begins with them, and not with what
# stands before them: so re looks for them without trying to match at each character.
_DASH_FOR_LONG_VOWEL = re.compile("[-\u2010-\u2015\u2212\u2500](?<=[\u30a1-\u30fa].)(?=[\u3041-\u30fa])")
# What people leave out: accents (Latin, Greek, Cyrillic), Hebrew points, Arabic vowel signs, hamzas; not the
# marks of kana, nor vowels of Indic scripts. Then soft hyphen, word joiner, byte order mark. One at a time:
# re finds a single character faster than the first of several.
_LEFT_OUT = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u00ad\u2060\ufeff]"
)
_CJK_RUN = re.compile(f"([{_CJK}]+)")
_CJK_CHARACTER = re.compile(f"[{_CJK}]")


def runs(text: str) -> list[tuple[bool, str]]:
    """The text as it is compared, in runs of (is CJK, characters)."""
    if text.isascii():
        return [(False, text)] if text else []
    # Every other part is what the others are parted by.
    parts = _CJK_RUN.split(_folded(text))
    return [(bool(place & 1), run) for place, run in enumerate(parts) if run]


def _folded(text: str) -> str:
    """NFKC without accents, points and characters that only say where a line may be broken."""
    # Full-width letters and half-width kana are other ways to write the same characters.
    bare = _LEFT_OUT.sub("", unicodedata.normalize("NFKD", text))
    return _DASH_FOR_LONG_VOWEL.sub("\u30fc", unicodedata.normalize("NFC", bare))


def is_cjk(token: str) -> bool:
    """Whether a token, which is never of both, is of CJK characters."""
    return _CJK_CHARACTER.match(token) is not None


def bigrams(run: str) -> list[str]:
    """Each two neighbouring characters; nothing for a single one."""
    return [*map(add, run, run[1:])]
