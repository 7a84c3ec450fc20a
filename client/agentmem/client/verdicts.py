"""What a failed attempt of a call means for what comes next."""

from __future__ import annotations

from enum import Enum

import grpc

from agentmem.client.errors import AgentMemError, DeadlineExceeded, Unavailable, from_server


class Verdict(Enum):
    """What a failed read means for what comes next."""

    # The node cannot serve now: pass it over for a while, ask another.
    ANOTHER_NODE = "another node"
    # The node is well and does not have the revision that was asked for yet, or the index of that moment of
    # the past: another may, or this one soon; the writer has the revision.
    FRESHER_NODE = "fresher node"
    # The node is well but cannot do this: one other replica may.
    ANOTHER_REPLICA_ONCE = "another replica once"
    # A fault of this node, such as a damaged record: one other node may be without it.
    ANOTHER_NODE_ONCE = "another node once"
    # Any node would say so.
    FINAL = "final"


class WriteVerdict(Enum):
    """What a failed attempt of a write means for what comes next."""

    # It was surely not done: send it again, to whoever is the writer then.
    NOT_DONE = "not done"
    # It may have been done. Sent again with its request_id, it is done once and answered alike.
    IN_DOUBT = "in doubt"
    # This is the answer.
    FINAL = "final"


def verdict(error: AgentMemError) -> Verdict:
    """What a read does after this error of one node."""
    if error.reason in ("OVERLOADED", "EMBEDDER_FAILED"):
        return Verdict.ANOTHER_REPLICA_ONCE
    if error.reason in ("REPLICA_STALE", "PAST_NOT_READY"):
        return Verdict.FRESHER_NODE
    if error.code in (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL):
        return Verdict.ANOTHER_NODE_ONCE
    # NOT_REPLICA: the node changed its role and the topology that says so is still on its way.
    if isinstance(error, Unavailable) or error.reason == "NOT_REPLICA":
        return Verdict.ANOTHER_NODE
    return Verdict.FINAL


# What a node says before it does any work: asking again, with pauses, costs the cluster next to nothing.
_CHEAP_REFUSALS = frozenset(
    (
        "NOT_CONNECTED",
        "REPLICA_STALE",
        "NOT_WRITER",
        "NOT_REPLICA",
        "HANDING_OVER",
        "STALE_EPOCH",
        "SHUTTING_DOWN",
    )
)


def costs_a_retry(error: AgentMemError) -> bool:
    """Whether asking again after this error counts against the retry budget."""
    return error.reason not in _CHEAP_REFUSALS


def write_verdict(error: AgentMemError, *, in_doubt: bool) -> WriteVerdict:
    """What a write does after this error of one attempt.

    Args:
        in_doubt: an earlier attempt may have been carried out. Then an error that a writer gives before it
            looks for the request_id is no answer: only the answer to the repeated request is.
    """
    # A commit that failed may have reached the disk, as may a write whose answer was lost or came too late.
    if isinstance(error, DeadlineExceeded) or error.reason in ("COMMIT_FAILED", "WRITER_REPLACED"):
        return WriteVerdict.IN_DOUBT
    # grpc gives the last two for some broken connections.
    lost = (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    )
    if error.code in lost and not from_server(error):
        return WriteVerdict.IN_DOUBT
    # A promotion is on its way, or the news of one: the next writer takes it.
    if error.reason in ("NOT_WRITER", "STALE_EPOCH", "HANDING_OVER"):
        return WriteVerdict.NOT_DONE
    if isinstance(error, Unavailable):
        again = in_doubt or error.reason in ("NOT_CONNECTED", "SHUTTING_DOWN")
        return WriteVerdict.NOT_DONE if again else WriteVerdict.FINAL
    if in_doubt and error.reason == "OVERLOADED":
        return WriteVerdict.NOT_DONE
    return WriteVerdict.FINAL
