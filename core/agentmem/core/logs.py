"""Logs: one line a record, as text or JSON, with the trace of the call that it belongs to.

What a memory says must not get into a log. Of an exception, whose message may repeat what it was given, a
record has the type and where it was raised; the message only when it is of a kind that is known not to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TextIO

from agentmem.core.errors import AgentMemError, DataLoss

LOG_FORMATS = ("text", "json")
MAX_FRAMES = 40
# What a record has besides its message, as ``extra={FIELDS: {...}}``: what JSON can say.
FIELDS = "agentmem_fields"
# The system's own words, and paths.
_SAFE_ERRORS = (OSError, MemoryError, RecursionError, asyncio.CancelledError, TimeoutError)

_logger = logging.getLogger(__name__)

# Says, in the context of a call, its trace: the ids of trace and span, in hexadecimal.
TraceSource = Callable[[], tuple[str, str] | None]


def describe(error: BaseException) -> str:
    """The type of an exception, and its message where that cannot have what a memory says."""
    name = type(error).__name__
    if isinstance(error, AgentMemError):
        # Damage is told by ordinals, revisions and files. Other messages may repeat a field of a request.
        return f"{error.reason}: {error.message}" if isinstance(error, DataLoss) else error.reason
    # LMDB speaks of pages, sizes and the disk.
    is_safe = isinstance(error, _SAFE_ERRORS) or type(error).__module__.partition(".")[0] == "lmdb"
    return f"{name}: {error}" if is_safe else name


def frames(error: BaseException) -> list[str]:
    """Where an exception was raised, the innermost last, and the same of its causes, in one list."""
    found: list[str] = []
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen and len(found) < MAX_FRAMES:
        seen.add(id(each))
        if each is not error:
            found.append(f"caused by {describe(each)}")
        found += [
            f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(each.__traceback__)
        ]
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return found[:MAX_FRAMES]


def _details(record: logging.LogRecord, trace: tuple[str, str] | None) -> dict[str, Any]:
    details: dict[str, Any] = dict(getattr(record, FIELDS, {}))
    if trace is not None:
        details["trace_id"], details["span_id"] = trace
    if record.exc_info and record.exc_info[1] is not None:
        details["error"] = describe(record.exc_info[1])
        details["frames"] = frames(record.exc_info[1])
    return details


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, and behind them ``name=value``."""

    def __init__(self, trace: TraceSource) -> None:
        super().__init__()
        self._trace = trace

    def format(self, record: logging.LogRecord) -> str:
        details = _details(record, self._trace())
        words = [f"{name}={_word(value)}" for name, value in details.items()]
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        return " ".join([head.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r"), *words])


def _word(value: Any) -> str:
    if isinstance(value, str) and value and not any(c.isspace() or c in '"=' for c in value):
        return value
    return json.dumps(value, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """An object a line."""

    def __init__(self, trace: TraceSource) -> None:
        super().__init__()
        self._trace = trace

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(document | _details(record, self._trace()), ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """A record that cannot be written: Python's own would print its arguments."""
        kind = sys.exc_info()[0]
        sys.stderr.write(f"a record of {record.name} cannot be written: {kind.__name__ if kind else '?'}\n")


def configure(log_format: str, trace: TraceSource) -> None:
    """Sends every log of the process to stderr, also what Python would print by itself.

    Args:
        log_format: one of LOG_FORMATS.
        trace: of the call in whose context something is logged.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter((JsonFormatter if log_format == "json" else TextFormatter)(trace))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _logger.critical("the process ends with an error", exc_info=error)


def _log_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        name = arguments.thread.name if arguments.thread else "?"
        _logger.error("the thread %s ended with an error", name, exc_info=arguments.exc_value)


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    if arguments.exc_value is not None:
        _logger.error("an error had nobody to be raised to", exc_info=arguments.exc_value)


def log_loop_error(loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """An event loop's exception handler. Its own one logs tasks with their results."""
    error = context.get("exception")
    # The message is asyncio's.
    _logger.error("%s", context.get("message", "an error in the event loop"), exc_info=error)
