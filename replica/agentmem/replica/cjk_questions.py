"""What to look for of a question in Chinese, Japanese or Korean.

These are written without spaces, or with particles glued to the words, so a question has more pairs of
characters that come of its grammar than of what it is about; and a rare one of these would outweigh all
else. So the question is cut where a word of grammar stands, and what is between is looked for by its pairs
of characters; by the single character when it is a word of one.

This is no segmentation: words of grammar are only those that are hardly ever a part of others, and where all
of a question is of them, all of it is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agentmem.replica.scripts import bigrams

_HANGUL = "\uac00-\ud7a3"
_HIRAGANA = "\u3041-\u3096\u309d\u309e"
_KANA = f"{_HIRAGANA}\u30a1-\u30fa\u30fc-\u30fe"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a question.

    Attributes:
        run: its characters.
        tokens: what is looked for of it.
    """

    run: str
    tokens: tuple[str, ...]


def pieces(run: str) -> list[Piece]:
    """The parts of a run of CJK characters that say what a question is about; none when it is all grammar."""
    found: list[Piece] = []
    for part in _PARTS.findall(run):
        if _IS_HANGUL.match(part):
            found += _korean(part)
        elif _HAS_KANA.search(part):
            found += _japanese(part)
        else:
            found += _chinese(part)
    return found


def whole(run: str) -> Piece:
    """All of a run, whatever it says."""
    return Piece(run, tuple(bigrams(run) or [run]))


_PARTS = re.compile(f"[{_HANGUL}]+|[^{_HANGUL}]+")
_IS_HANGUL = re.compile(f"[{_HANGUL}]")
_HAS_KANA = re.compile(f"[{_KANA}]")


def _any_of(*words: str) -> str:
    """An expression for one of the words, the longest first."""
    return "|".join(sorted(" ".join(words).split(), key=len, reverse=True))


# Chinese. Traditional and simplified forms are words of their own.

_CHINESE_QUESTIONS = _any_of("""
什么时候 什麼時候 什么样 什麼樣 什么 什麼 甚麼 为什么 為什麼 怎么样 怎麼樣 怎么 怎麼 为何 為何 如何
哪里 哪裡 哪裏 哪儿 哪兒 哪个 哪個 哪些 哪一个 哪一個 哪一种 哪一種 多少 是不是 有没有 有沒有 能不能
会不会 會不會 可不可以 可以 请问 請問 告诉我 告訴我 吗 嗎 呢 吧 呀 嘛 谁 誰
""")
_CHINESE_CUT = re.compile(f"(?:{_CHINESE_QUESTIONS}|(?<!目)的(?!确|確|士))+")
# Alone, or together, these are no word; at the edge of a piece they are likely to be none.
_CHINESE_FUNCTION = frozenset(
    "我你您他她它们們这這那哪几幾是在有和跟与與也都就又还還把被给給对對从從到让讓要会會能想很了"
)


def _chinese(run: str) -> Iterator[Piece]:
    for part in _CHINESE_CUT.split(run):
        core = part.strip("".join(_CHINESE_FUNCTION))
        tokens = [pair for pair in bigrams(part) if not _CHINESE_FUNCTION.issuperset(pair)]
        if len(core) == 1:
            tokens.append(core)
        if core:
            yield Piece(core, tuple(tokens))


# Japanese

_JAPANESE_PARTICLES = frozenset("はがをにへとでものかやねよなさたてんい")
_JAPANESE_GRAMMAR_WORDS = """
より から まで だけ しか など って では には とは でも にも へは へも のは のが のを ので
のに です でした だ だった である ます ました ません ませんか ましたか ますか ですか でしたか
でしょうか だろう いつ どこ だれ なに なん なぜ どう どの どれ どちら どんな どうして いくつ
いくら ある あり あります ありますか ありました いる います いますか いました いて ている
ています ていますか ていた ていました する します しますか しました した して してい される こと
もの ところ そう これ それ あれ この その あの ここ そこ あそこ ください くださ たい ほしい
あなた わたし ぼく
"""
_JAPANESE_GRAMMAR = frozenset(_JAPANESE_GRAMMAR_WORDS.split())
_JAPANESE_FUNCTION = _JAPANESE_PARTICLES | _JAPANESE_GRAMMAR
_NEVER_ENDINGS = frozenset("はを")  # of what is written with kanji
_LONGEST_JAPANESE_FUNCTION = max(map(len, _JAPANESE_FUNCTION))
_JAPANESE_QUESTIONS = re.compile("何[時日人月年回個歳曜番分円]?|誰|教えて(?=くだ|くれ|ほし|$)")
_JAPANESE_PARTS = re.compile(f"[{_HIRAGANA}]+|[^{_HIRAGANA}]+")
_IS_HIRAGANA = re.compile(f"[{_HIRAGANA}]")
_CUT = " "


def _japanese(run: str) -> Iterator[Piece]:
    kept = ""
    for part in _JAPANESE_PARTS.findall(_JAPANESE_QUESTIONS.sub(_CUT, run)):
        if _IS_HIRAGANA.match(part):
            # At the beginning of a run a particle is likely to be that of a word, as in はな (flower) and
            # いか (squid); behind other characters it is one, or an ending.
            begins = not kept
            if kept and part[0] in _NEVER_ENDINGS:
                kept += _CUT
                part = part[1:]
                begins = True
            end = _end_of_first_word(part) if begins else _end_of_word(part)
            kept += part if end == len(part) else part[:end] + _CUT
        else:
            kept += part
    for word in kept.split(_CUT):
        if len(word) > 1 or (word and not _HAS_KANA.match(word)):
            yield whole(word)


def _are_function(part: str) -> list[bool]:
    """For each place in the kana whether all from there on is words of grammar; so is nothing, at the end."""
    # Not as an expression: that takes exponential time where a word is made of others.
    rest = [False] * len(part) + [True]
    for place in reversed(range(len(part))):
        ends = range(place + 1, min(len(part), place + _LONGEST_JAPANESE_FUNCTION) + 1)
        rest[place] = any(rest[end] and part[place:end] in _JAPANESE_FUNCTION for end in ends)
    return rest


def _end_of_word(part: str) -> int:
    return _are_function(part).index(True)


def _end_of_first_word(part: str) -> int:
    if not part:
        return 0
    rest = _are_function(part)
    for begin in (0, 1) if part[0] in _JAPANESE_PARTICLES else (0,):
        ends = range(begin + 1, min(len(part), begin + _LONGEST_JAPANESE_FUNCTION) + 1)
        if any(rest[end] and part[begin:end] in _JAPANESE_GRAMMAR for end in ends):
            return 0
    return 2 + rest[2:].index(True) if len(part) > 2 else len(part)


# Korean: a run is what stands between two spaces, a word with its particles.

_KOREAN_PARTICLES = _any_of("""
은 는 이 가 을 를 에 의 도 로 와 과 만 께 나 요 에서 에게 한테 께서 으로 부터 까지 이나 이랑 랑 하고
처럼 보다 마다 에는 에도 에서는 에서도 으로는 로는 에게는 한테는 예요 이에요 인가요 입니까
입니다 이야 이죠 이지 였죠 였어요
""")
_KOREAN_WORD = re.compile(f"(.+?)(?:{_KOREAN_PARTICLES})")
_KOREAN_QUESTIONS = re.compile(
    "(?:"
    + _any_of("""
뭐 뭘 뭔가 무엇 무슨 어디 언제 누구 누가 왜 어떻게 어떤 어느 얼마나 얼마 몇 이 그 저
있 있나 있어 있지 있는 있는지 있을까 없 없나 없어 하 하나 하는 하세 해 해야 되 되나 돼 되어 될까 알려 주세 줘
""")
    + f")(?:{_KOREAN_PARTICLES}){{0,2}}"
)


def _korean(run: str) -> Iterator[Piece]:
    if _KOREAN_QUESTIONS.fullmatch(run):
        return
    inflected = _KOREAN_WORD.fullmatch(run)
    if inflected is None:
        yield whole(run)
    elif len(inflected.group(1)) == 1:
        # It may as well be a word of two that ends like a particle.
        yield Piece(run, (*bigrams(run), inflected.group(1)))
    else:
        yield whole(inflected.group(1))
