"""The readable form of a filter, as text to a message of the API.

    user_id = "ana" and event_time >= "2023-05-01" and not tags = "draft"
    (metadata.city in ("Lima", "Quito") or importance > 0.5) and event_time > now - 7d

    filter     any of these with  or  between them; and  binds closer, not  closest; ( ) for groups
    condition  field = value, != < <= > >=
               field in (value, ...)         field between value and value
               field starts with "text"      field contains value        (prefix is short for starts with)
               field exists                  field missing
               not  may stand before in, between, starts with, prefix and contains
    field      a name, metadata.key, or metadata."any key"
    value      "text" or 'text' with escapes \\" \\' \\\\ \\n \\r \\t \\uXXXX; a number; true; false; a time
    time       2023-05-01, 2023-05-01T13:56:00Z, now, now - 7d, now + 90m (units s m h d w); in a field of
               times in quotes, too. UTC where it names no zone

A date is the whole day: = is any moment of it, >= from its start, > after its end, < before its start, <= to
its end, and between goes from the start of the first to the end of the last. Words are read in upper and
lower case. ``now`` is the moment at which the text is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from agentmem.client import values
from agentmem.client.errors import FilterSyntaxError, InvalidArgument
from agentmem.client.times import end_of_day, from_iso, is_date
from agentmem.v1 import filter_pb2

MAX_CHARACTERS = 65_536
# The server takes half of it; a text of parentheses alone shall not exhaust Python's stack either.
MAX_LEVELS = 32
TIME_FIELDS = frozenset({"event_time", "create_time", "update_time", "expire_time"})
METADATA_PREFIX = "metadata."

NAME = r"\w[\w.-]*"
_SPACE = re.compile(r"\s*")
_NAME = re.compile(NAME)
_SYMBOL = re.compile(r"<=|>=|!=|<>|==|=|<|>")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = re.compile(rf"{_DATE}(?:T[0-9:.]+(?:Z|[+-][0-9:]+)?)?(?![\w.:+-])", re.IGNORECASE)
_NOW = re.compile(r"now\b(?:\s*([+-])\s*([0-9]+(?:\.[0-9]+)?)([smhdw])\b)?", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?(?![\w.-])", re.IGNORECASE)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_KEYWORDS = frozenset(
    ["and", "or", "not", "in", "between", "starts", "prefix", "contains", "exists", "missing"]
)
_SYMBOLS = {
    "=": filter_pb2.OPERATOR_EQ,
    "==": filter_pb2.OPERATOR_EQ,
    "!=": filter_pb2.OPERATOR_NE,
    "<>": filter_pb2.OPERATOR_NE,
    "<": filter_pb2.OPERATOR_LT,
    "<=": filter_pb2.OPERATOR_LTE,
    ">": filter_pb2.OPERATOR_GT,
    ">=": filter_pb2.OPERATOR_GTE,
}
_OPERATORS = "=, !=, <, <=, >, >=, in, between, starts with, contains, exists or missing"


def parse(text: str, now: datetime | None = None) -> filter_pb2.Filter:
    """The filter that a text describes.

    Args:
        now: what ``now`` in the text means; the clock's time when None.

    Raises:
        FilterSyntaxError: it describes none; it says what was expected where.
        InvalidArgument: ``now`` has no time zone.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterSyntaxError(f"has more than {MAX_CHARACTERS} characters", text, MAX_CHARACTERS)
    if now is not None:
        values.timestamp("now", now)
    return _Parser(text, datetime.now(UTC) if now is None else now).whole()


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value, and for a date, whose value is its start, the last moment of the day."""

    value: filter_pb2.FilterValue
    end: filter_pb2.FilterValue | None = None

    @property
    def last(self) -> filter_pb2.FilterValue:
        return self.end or self.value


class _Parser:
    """Recursive descent over one text, from left to right, without backtracking."""

    def __init__(self, text: str, now: datetime) -> None:
        self._text = text
        self._now = now
        self._position = 0
        self._levels = 0

    def whole(self) -> filter_pb2.Filter:
        found = self._alternatives()
        if self._rest():
            self._expected('"and", "or" or the end')
        return found

    # Text

    def _rest(self) -> bool:
        """Goes to the next character that is not a space; says whether there is one."""
        matched = _SPACE.match(self._text, self._position)
        assert matched is not None
        self._position = matched.end()
        return self._position < len(self._text)

    def _taken(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._rest()
        matched = pattern.match(self._text, self._position)
        if matched is not None:
            self._position = matched.end()
        return matched

    def _word(self) -> str:
        """The next word in lower case, without taking it; "" when there is none."""
        self._rest()
        matched = _NAME.match(self._text, self._position)
        return "" if matched is None else matched[0].lower()

    def _takes_word(self, word: str) -> bool:
        if self._word() != word:
            return False
        self._position += len(word)
        return True

    def _takes_sign(self, sign: str) -> bool:
        if not self._rest() or self._text[self._position] != sign:
            return False
        self._position += 1
        return True

    def _need_sign(self, sign: str, what: str) -> None:
        if not self._takes_sign(sign):
            self._expected(what)

    def _expected(self, what: str) -> NoReturn:
        """Refuses what comes next."""
        if not self._rest():
            found = "the end"
        else:
            word = _NAME.match(self._text, self._position)
            found = repr(word[0] if word else self._text[self._position])
        self._refuse(f"expected {what}, not {found}", self._position)

    def _refuse(self, problem: str, position: int) -> NoReturn:
        raise FilterSyntaxError(problem, self._text, position)

    # Filters

    def _alternatives(self) -> filter_pb2.Filter:
        parts = [self._conjunction()]
        while self._takes_word("or"):
            parts.append(self._conjunction())
        return any_of(parts)

    def _conjunction(self) -> filter_pb2.Filter:
        parts = [self._part()]
        while self._takes_word("and"):
            parts.append(self._part())
        if len(parts) == 1:
            return parts[0]
        return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=parts))

    def _part(self) -> filter_pb2.Filter:
        self._rest()
        self._levels += 1
        if self._levels > MAX_LEVELS:
            self._refuse(f"is nested deeper than {MAX_LEVELS} levels", self._position)
        if self._takes_word("not"):
            part = negated(self._part())
        elif self._takes_sign("("):
            part = self._alternatives()
            self._need_sign(")", '"and", "or" or ")"')
        else:
            part = self._condition()
        self._levels -= 1
        return part

    def _condition(self) -> filter_pb2.Filter:
        field = self._field()
        symbol = self._taken(_SYMBOL)
        if symbol is not None:
            return _condition(field, _SYMBOLS[symbol[0]], [self._value(field)])
        if self._takes_word("not"):
            return negated(self._worded(field, "in, between, starts with, prefix or contains after not"))
        if self._takes_word("exists"):
            return _condition(field, filter_pb2.OPERATOR_EXISTS, [])
        if self._takes_word("missing"):
            return negated(_condition(field, filter_pb2.OPERATOR_EXISTS, []))
        return self._worded(field, _OPERATORS)

    def _worded(self, field: str, expected: str) -> filter_pb2.Filter:
        """The rest of a condition whose operator is a word and takes values."""
        if self._takes_word("in"):
            return _condition(field, filter_pb2.OPERATOR_IN, self._list(field))
        if self._takes_word("between"):
            low = self._value(field)
            if not self._takes_word("and"):
                self._expected('"and" and the upper end of between')
            return _condition(field, filter_pb2.OPERATOR_BETWEEN, [low, self._value(field)])
        if self._takes_word("contains"):
            return _condition(field, filter_pb2.OPERATOR_CONTAINS, [self._value("")])
        if self._takes_word("starts"):
            if not self._takes_word("with"):
                self._expected('"with", as in: starts with')
        elif not self._takes_word("prefix"):
            self._expected(expected)
        return _condition(field, filter_pb2.OPERATOR_PREFIX, [self._value("")])

    def _field(self) -> str:
        if self._word() in _KEYWORDS:
            self._expected("a field")
        name = self._taken(_NAME)
        if name is None:
            self._expected('a field, such as user_id or metadata."a key"')
        if name[0] != METADATA_PREFIX:
            return name[0]
        start = self._position
        key = self._taken(_QUOTED) if start < len(self._text) and not self._text[start].isspace() else None
        if key is None:
            self._refuse('expected a key behind metadata., such as metadata.city or metadata."a key"', start)
        return METADATA_PREFIX + self._unquoted(key)

    # Values

    def _list(self, field: str) -> list[_Operand]:
        self._need_sign("(", '"(" before the values')
        operands = [self._value(field)]
        while self._takes_sign(","):
            operands.append(self._value(field))
        self._need_sign(")", '"," or ")"')
        return operands

    def _value(self, field: str) -> _Operand:
        self._rest()
        start = self._position
        try:
            return self._literal(field)
        except FilterSyntaxError:
            raise
        except InvalidArgument as error:  # a number or a text that cannot be sent
            self._refuse(error.message, start)

    def _literal(self, field: str) -> _Operand:
        quoted = self._taken(_QUOTED)
        if quoted is not None:
            text = self._unquoted(quoted)
            if field in TIME_FIELDS:
                return self._time(text, quoted.start())
            return _Operand(filter_pb2.FilterValue(string_value=values.text("the text", text)))
        if self._position < len(self._text) and self._text[self._position] in "\"'":
            self._refuse("the quotes are not closed", self._position)
        if time := self._taken(_TIME):
            return self._time(time[0], time.start())
        if number := self._taken(_NUMBER):
            return _Operand(filter_pb2.FilterValue(number_value=_number(number[0])))
        if now := self._taken(_NOW):
            return self._relative(now)
        if self._word() in ("true", "false"):
            holds = self._takes_word("true") or not self._takes_word("false")
            return _Operand(filter_pb2.FilterValue(bool_value=holds))
        what = "a time" if field in TIME_FIELDS else "a value"
        return self._expected(f"{what} (text goes in quotes)")

    def _time(self, text: str, position: int) -> _Operand:
        try:
            # ISO 8601 has more ways to write a date; none of them would be seen to be a whole day.
            if not re.match(_DATE, text):
                raise ValueError(f"{text!r} is not a time like 2023-05-08 or 2023-05-08T13:56:00Z")
            start = from_iso(text)
        except ValueError as error:
            self._refuse(str(error), position)
        end = _moment(end_of_day(start)) if is_date(text) else None
        return _Operand(_moment(start), end)

    def _relative(self, matched: re.Match[str]) -> _Operand:
        sign, count, unit = matched.groups()
        try:
            back = timedelta(**{_UNITS[unit.lower()]: float(count)}) if sign else timedelta(0)
            return _Operand(_moment(self._now - back if sign == "-" else self._now + back))
        except OverflowError:
            self._refuse(f"{matched[0]!r} is beyond the years 1 to 9999", matched.start())

    def _unquoted(self, quoted: re.Match[str]) -> str:
        def character(escape: re.Match[str]) -> str:
            short, long, single = escape.groups()
            if single is not None and single not in _ESCAPED:
                self._refuse(f"there is no escape {escape[0]}", quoted.start() + 1 + escape.start())
            try:
                return _ESCAPED[single] if single is not None else chr(int(short or long, 16))
            except ValueError:
                self._refuse(f"{escape[0]} is no character", quoted.start() + 1 + escape.start())

        return _ESCAPE.sub(character, quoted[0][1:-1])


def negated(part: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(negated=part)


def any_of(parts: Sequence[filter_pb2.Filter]) -> filter_pb2.Filter:
    """The parts as alternatives; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    return filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=parts))


def _number(literal: str) -> float:
    """The number; raises InvalidArgument for one that a double does not hold."""
    digits = literal.lstrip("+-0")
    if digits.isdigit():
        # Longer ones are too large all the same, and Python does not convert thousands of digits.
        values.number("the number", int(digits[:20]))
    return values.number("the number", float(literal))


def _moment(moment: datetime) -> filter_pb2.FilterValue:
    return filter_pb2.FilterValue(time_value=values.timestamp("the time", moment))


def _condition(field: str, operator: filter_pb2.Operator, operands: Sequence[_Operand]) -> filter_pb2.Filter:
    """The condition; where an operand is a whole day, the one that means it."""
    if any(operand.end for operand in operands):
        if operator == filter_pb2.OPERATOR_NE:
            return negated(_condition(field, filter_pb2.OPERATOR_EQ, operands))
        if operator == filter_pb2.OPERATOR_IN:
            return any_of([_condition(field, filter_pb2.OPERATOR_EQ, [each]) for each in operands])
        if operator == filter_pb2.OPERATOR_EQ:
            return _made(field, filter_pb2.OPERATOR_BETWEEN, operands[0].value, operands[0].last)
        if operator in (filter_pb2.OPERATOR_GT, filter_pb2.OPERATOR_LTE):
            return _made(field, operator, operands[0].last)
        if operator == filter_pb2.OPERATOR_BETWEEN:
            return _made(field, operator, operands[0].value, operands[1].last)
    return _made(field, operator, *(operand.value for operand in operands))


def _made(field: str, operator: filter_pb2.Operator, *given: filter_pb2.FilterValue) -> filter_pb2.Filter:
    return filter_pb2.Filter(condition=filter_pb2.Condition(field=field, operator=operator, values=given))
