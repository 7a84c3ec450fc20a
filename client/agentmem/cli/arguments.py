"""Values as people type them on the command line."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from agentmem.cli.failures import usage_error
from agentmem.client import (
    EVENTUAL,
    LOCAL,
    STRONG,
    Acknowledgement,
    Consistency,
    Filter,
    InvalidArgument,
    MemoryType,
    applied,
    at_least,
    max_staleness,
    replicated,
)
from agentmem.client.filters import Scope
from agentmem.client.times import end_of_day as last_of_day
from agentmem.client.times import from_iso, is_date

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ACKNOWLEDGEMENT = re.compile(r"local|(?P<level>replicated|applied)(?::(?P<replicas>[1-9]\d?|100))?")
_MAX_REVISION = 2**64 - 1


def parse_time(text: object, name: str, *, end_of_day: bool = False) -> datetime:
    """An ISO date or date and time, to the nanosecond; UTC when it names no zone.

    Raises ValueError naming what it was for.
    """
    try:
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not a time like 2023-05-08 or 2023-05-08T13:56:00Z")
        moment = from_iso(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return last_of_day(moment) if end_of_day and is_date(text) else moment


def parse_duration(text: str, name: str) -> timedelta:
    """A length of time like 90s, 15m, 2h or 7d."""
    parsed = _DURATION.fullmatch(text)
    try:
        duration = timedelta(**{_UNITS[parsed[2]]: float(parsed[1])}) if parsed else timedelta(0)
    except OverflowError:
        duration = timedelta(0)
    if duration <= timedelta(0):
        raise usage_error(f"{name}: {text!r} is not a length of time like 90s, 15m, 2h or 7d")
    return duration


def as_of(text: str | None) -> int | datetime | None:
    """A revision, or a time; None is now."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        revision = int(text)
        if revision > _MAX_REVISION:
            raise usage_error(f"--as-of: there is no revision {text}")
        return revision
    try:
        return parse_time(text, "--as-of")
    except ValueError as error:
        raise usage_error(f"{error}, nor a revision") from None


def after(text: str | None) -> int | str | None:
    """A revision, or the token of a position; None is now."""
    if text is None or not (text.isascii() and text.isdigit()):
        return text
    return int(text)


def consistency(text: str | None) -> Consistency:
    """How new an answer must be; without any wish as new as it is."""
    wanted = EVENTUAL
    for part in () if text is None else text.split(","):
        name, equals, value = part.strip().partition("=")
        if name == "strong" and not equals:
            wanted &= STRONG
        elif name == "max-staleness" and equals:
            wanted &= max_staleness(parse_duration(value, "--consistency max-staleness"))
        elif name == "at-least" and value.isascii() and value.isdigit() and int(value) <= _MAX_REVISION:
            wanted &= at_least(int(value))
        elif name != "eventual" or equals:
            raise usage_error(
                f"--consistency: {part!r} is not eventual, strong, at-least=REVISION or max-staleness=2s"
            )
    return wanted


def acknowledgement(text: str | None) -> Acknowledgement:
    """When a write counts as done."""
    parsed = _ACKNOWLEDGEMENT.fullmatch("local" if text is None else text)
    if parsed is None:
        raise usage_error(f"--ack: {text!r} is not local, replicated:N or applied:N, with N from 1 to 100")
    if parsed["level"] is None:
        return LOCAL
    replicas = int(parsed["replicas"] or 1)
    return replicated(replicas) if parsed["level"] == "replicated" else applied(replicas)


def parse_metadata(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; a value that is JSON is taken as JSON, any other as text."""
    metadata: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise usage_error(f"--meta {pair!r}: write it as key=value")
        try:
            metadata[key] = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            metadata[key] = text
    return metadata


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity, which are not JSON: they stay text.
    raise ValueError(name)


def scope(
    user_id: str | None,
    agent_id: str | None,
    session_id: str | None,
    types: list[MemoryType] | None,
    tags: list[str] | None,
    since: str | None,
    until: str | None,
) -> Scope:
    """Which memories a command is about."""
    scope = Scope(user_id=user_id, agent_id=agent_id, session_id=session_id, types=types, tags=tags)
    try:
        if since is not None:
            scope["since"] = parse_time(since, "--since")
        if until is not None:
            scope["until"] = parse_time(until, "--until", end_of_day=True)
    except ValueError as error:
        raise usage_error(str(error)) from None
    return scope


def where(text: str | None) -> Filter | None:
    """The filter that was typed."""
    if text is None:
        return None
    try:
        return Filter.parse(text)
    except InvalidArgument as error:
        raise usage_error(f"--filter: {error}") from None


def fields(
    user_id: str | None,
    agent_id: str | None,
    session_id: str | None,
    importance: float | None,
    tags: list[str] | None,
    meta: list[str] | None,
) -> dict[str, Any]:
    """The fields of a memory that were given, by name."""
    fields: dict[str, Any] = {}
    if user_id is not None:
        fields["user_id"] = user_id
    if agent_id is not None:
        fields["agent_id"] = agent_id
    if session_id is not None:
        fields["session_id"] = session_id
    if importance is not None:
        fields["importance"] = importance
    if tags:
        fields["tags"] = tags
    if meta:
        fields["metadata"] = parse_metadata(meta)
    return fields


def times(event_time: str | None, expire_time: str | None, ttl: str | None) -> dict[str, Any]:
    """The times of a memory that were given, by name."""
    if expire_time is not None and ttl is not None:
        raise usage_error("--ttl: not together with --expire-time")
    times: dict[str, Any] = {}
    try:
        if event_time is not None:
            times["event_time"] = parse_time(event_time, "--event-time")
        if expire_time is not None:
            times["expire_time"] = parse_time(expire_time, "--expire-time")
    except ValueError as error:
        raise usage_error(str(error)) from None
    if ttl is not None:
        times["ttl"] = parse_duration(ttl, "--ttl")
    return times


def text(content: str) -> str:
    """The text of a memory, from standard input for `-`."""
    if content != "-":
        return content
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise usage_error(f"standard input is not UTF-8: {error.reason}") from None
