"""Values as people type them on the command line."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from agentmem.cli.failures import usage_error
from agentmem.client import MemoryType
from agentmem.client.filters import Scope

_DATE_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")


def parse_time(text: object, name: str, *, end_of_day: bool = False) -> datetime:
    """An ISO date or date and time; UTC when it names no zone. Raises ValueError naming what it was for."""
    try:
        if not isinstance(text, str):
            raise ValueError
        if _DATE_ONLY.fullmatch(text):
            day = date.fromisoformat(text)
            return datetime.combine(day, time.max if end_of_day else time.min, UTC)
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{name}: {text!r} is not a time like 2023-05-08 or 2023-05-08T13:56:00Z") from None


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
    """Which memories list and search look at."""
    scope = Scope(user_id=user_id, agent_id=agent_id, session_id=session_id, types=types, tags=tags)
    try:
        if since is not None:
            scope["since"] = parse_time(since, "--since")
        if until is not None:
            scope["until"] = parse_time(until, "--until", end_of_day=True)
    except ValueError as error:
        raise usage_error(str(error)) from None
    return scope


def fields(
    user_id: str | None,
    agent_id: str | None,
    session_id: str | None,
    importance: float | None,
    tags: list[str] | None,
    meta: list[str] | None,
    event_time: str | None,
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
    if event_time is not None:
        try:
            fields["event_time"] = parse_time(event_time, "--event-time")
        except ValueError as error:
            raise usage_error(str(error)) from None
    return fields


def text(content: str) -> str:
    """The text of a memory, from standard input for `-`."""
    if content != "-":
        return content
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise usage_error(f"standard input is not UTF-8: {error.reason}") from None
