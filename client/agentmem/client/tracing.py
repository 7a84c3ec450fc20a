"""Spans of an application that uses OpenTelemetry, and the trace that calls bring to the servers.

Nothing is imported for an application that does not: the client depends on grpc and protobuf alone. What is
recorded, and where it goes, is the application's to set up.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from google.protobuf.message import Message

_ATTEMPT_KEY = "agentmem-attempt"
_TRACE_KEY = "traceparent"
_SCOPE = "agentmem.client"

# What the attempts that follow in this context are: "" for a first one.
attempt_kind: ContextVar[Literal["", "retry", "hedge"]] = ContextVar("attempt_kind", default="")


def _tracer() -> Any:
    """OpenTelemetry's, when the application has loaded it."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    return trace.get_tracer(_SCOPE)


@contextmanager
def call_span(request: Message) -> Iterator[None]:
    """A span for a call of the API, with all of its attempts. Errors are recorded by their types alone."""
    tracer = _tracer()
    if tracer is None:
        yield
        return
    name = type(request).__name__.removesuffix("Request")
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield
        except Exception as error:
            _fail(span, error)
            raise


@contextmanager
def attempt_span(request: Message, address: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """A span for one attempt on a node, as a child of that of its call; gives what metadata to send."""
    kind = attempt_kind.get()
    marks: tuple[tuple[str, str], ...] = ((_ATTEMPT_KEY, kind),) if kind else ()
    tracer = _tracer()
    if tracer is None:
        yield marks
        return
    from opentelemetry.trace import SpanKind

    host, _, port = address.rpartition(":")
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": type(request).__name__.removesuffix("Request"),
        "server.address": host,
        "server.port": int(port) if port.isdecimal() else 0,
        "agentmem.attempt": kind or "first",
    }
    with tracer.start_as_current_span(
        "attempt",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        context = span.get_span_context()
        if context.is_valid:
            flags = int(context.trace_flags)
            marks += ((_TRACE_KEY, f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"),)
        try:
            yield marks
        except Exception as error:
            _fail(span, error)
            raise


def _fail(span: Any, error: Exception) -> None:
    """Without its message, which may repeat what was sent."""
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", getattr(error, "reason", "") or type(error).__name__)
