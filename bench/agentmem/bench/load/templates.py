"""The template actions of ghz's call data: a small part of Go's templates, and nothing that could run code.

An action is ``{{...}}`` with a variable (``.RequestNumber``), or a function with whole numbers, variables or
actions in parentheses (``randomInt 0 10``, ``mod .RequestNumber 1000``). Anything else is refused, with its
position.
"""

import random
import re
import string
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from google.protobuf.descriptor import MethodDescriptor

from agentmem.bench.load.errors import LoadError

# randomString without arguments, as in ghz.
MIN_STRING_CHARS = 2
MAX_STRING_CHARS = 16
# More is refused: a template is for variety, not for big payloads.
MAX_RANDOM_STRING_CHARS = 65_536

_CHARS = string.ascii_letters + string.digits
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:(?P<number>-?\d+)|(?P<variable>\.\w+)|(?P<function>\w+)|(?P<bracket>[()]))")

Value = str | int | bool


@dataclass
class Call:
    """What the variables of one call's templates mean."""

    method: MethodDescriptor
    number: int
    worker: str
    random: random.Random

    @cached_property
    def uuid(self) -> str:
        return str(uuid.uuid4())

    @cached_property
    def time_ns(self) -> int:
        return time.time_ns()


Expression = Callable[[Call], Value]


def _random_string(call: Call, least: int = MIN_STRING_CHARS, most: int = MAX_STRING_CHARS) -> str:
    if not 0 <= least <= most <= MAX_RANDOM_STRING_CHARS:
        raise LoadError(
            f"randomString {least} {most}: 0 <= min <= max <= {MAX_RANDOM_STRING_CHARS} must hold"
        )
    return "".join(call.random.choices(_CHARS, k=call.random.randint(least, most)))


def _random_int(call: Call, least: int = 0, below: int = 2**31) -> int:
    if least >= below:
        raise LoadError(f"randomInt {least} {below}: the first number must be below the second")
    return call.random.randrange(least, below)


def _mod(_: Call, number: int, divisor: int) -> int:
    if divisor == 0:
        raise LoadError("mod: the second number must not be 0")
    return number % divisor


# Each with the numbers of arguments it may have.
_FUNCTIONS: dict[str, tuple[Callable[..., Value], tuple[int, ...]]] = {
    # Not of the seed: it must be new in the next run, too.
    "newUUID": (lambda _: str(uuid.uuid4()), (0,)),
    "randomString": (_random_string, (0, 2)),
    "randomInt": (_random_int, (0, 2)),
    "add": (lambda _, *numbers: sum(numbers), (2, 3, 4)),
    "mod": (_mod, (2,)),
}
_VARIABLES: dict[str, Expression] = {
    ".RequestNumber": lambda call: call.number,
    ".WorkerID": lambda call: call.worker,
    ".UUID": lambda call: call.uuid,
    ".FullyQualifiedName": lambda call: call.method.full_name,
    ".MethodName": lambda call: call.method.name,
    ".ServiceName": lambda call: call.method.containing_service.name,
    ".InputName": lambda call: call.method.input_type.name,
    ".OutputName": lambda call: call.method.output_type.name,
    ".IsClientStreaming": lambda call: call.method.client_streaming,
    ".IsServerStreaming": lambda call: call.method.server_streaming,
    ".Timestamp": lambda call: datetime.fromtimestamp(call.time_ns / 1e9, UTC).isoformat("T", "seconds"),
    ".TimestampUnix": lambda call: call.time_ns // 10**9,
    ".TimestampUnixMilli": lambda call: call.time_ns // 10**6,
    ".TimestampUnixNano": lambda call: call.time_ns,
}
# What cannot be known before the call.
_LATE = {".WorkerID", ".Timestamp", ".TimestampUnix", ".TimestampUnixMilli", ".TimestampUnixNano"}


class Template:
    """A text with actions. Raises LoadError naming the option, the action and its position."""

    def __init__(self, text: str, option: str) -> None:
        self._parts: list[str | Expression] = []
        self._late = False
        end = 0
        for match in _ACTION.finditer(text):
            self._add(text[end : match.start()])
            parser = _Parser(match[1], f"{option}: position {match.start()}: {match[0]}")
            self._parts.append(parser.whole())
            self._late |= bool(parser.variables & _LATE)
            end = match.end()
        self._add(text[end:])
        if (opened := text.find("{{", end)) >= 0:
            raise LoadError(f"{option}: position {opened}: {{{{ without }}}}")

    def _add(self, text: str) -> None:
        if text:
            self._parts.append(text)

    @property
    def constant(self) -> bool:
        """Whether each call has the same text."""
        return all(isinstance(part, str) for part in self._parts)

    @property
    def early(self) -> bool:
        """Whether the text of a call may be built before the call is due."""
        return not self._late

    def render(self, call: Call) -> str:
        return "".join(part if isinstance(part, str) else _show(part(call)) for part in self._parts)


def _show(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Parser:
    """The inside of one action."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self.variables: set[str] = set()
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"{text[position:].strip()!r} is not understood")
            self._tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()

    def _error(self, what: str) -> LoadError:
        return LoadError(f"{self._where}: {what}")

    def whole(self) -> Expression:
        expression = self._command()
        if self._tokens:
            raise self._error(f"{self._tokens[0][1]!r} is too much")
        return expression

    def _command(self) -> Expression:
        """A function with its arguments, or a variable or number alone."""
        if not self._tokens:
            raise self._error("the action is empty")
        kind, name = self._tokens[0]
        if kind != "function":
            return self._operand()
        del self._tokens[0]
        if name not in _FUNCTIONS:
            raise self._error(f"no function {name}; there are {', '.join(sorted(_FUNCTIONS))}")
        function, counts = _FUNCTIONS[name]
        operands = []
        while self._tokens and self._tokens[0][1] != ")":
            operands.append(self._operand())
        if len(operands) not in counts:
            raise self._error(f"{name} takes {' or '.join(map(str, counts))} numbers, not {len(operands)}")
        return lambda call: function(call, *(self._whole_number(operand(call)) for operand in operands))

    def _operand(self) -> Expression:
        kind, text = self._tokens.pop(0)
        if kind == "number":
            number = int(text)
            return lambda _: number
        if kind == "variable":
            if text not in _VARIABLES:
                raise self._error(f"no variable {text}; there are {', '.join(sorted(_VARIABLES))}")
            self.variables.add(text)
            return _VARIABLES[text]
        if text == "(":
            inner = self._command()
            if not self._tokens or self._tokens.pop(0)[1] != ")":
                raise self._error("( without )")
            return inner
        raise self._error(f"{text!r} is not a number, a variable or an action in parentheses")

    def _whole_number(self, value: Value) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._error(f"{value!r} is not a whole number")
