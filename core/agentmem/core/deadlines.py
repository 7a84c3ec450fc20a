"""How long a call may wait for something and still be answered within its deadline."""

from __future__ import annotations

from typing import Any

import grpc

# What an answer needs on its way.
ANSWER_MARGIN_S = 0.05


def allowed_wait_s(context: grpc.aio.ServicerContext[Any, Any], most_s: float) -> float:
    """At most ``most_s``, and less than what is left of the call's deadline; not below 0."""
    remaining_s = context.time_remaining()
    if remaining_s is None:
        return most_s
    return max(0.0, min(most_s, remaining_s - ANSWER_MARGIN_S))
