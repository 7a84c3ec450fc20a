"""Which node a call goes to: pure functions over immutable descriptions.

A replica costs its latency times the calls it would then have open:

    cost = latency_s × (outstanding + 1)

The latency is a peak-sensitive moving average (peak EWMA): a slower answer counts at once, a faster one by
and by, and without any answers it decays, so that a replica that was slow is tried again. While calls are
open, the time since the last answer counts at once, too: a replica that hangs costs more the longer it does,
and calls go elsewhere long before the first of them fails. Of two replicas drawn at random the cheaper one is
taken ("power of two choices"): always taking the cheapest would send every client to the same one. A node
that failed is passed over for a short time that grows with each failure, unless nothing else is left: the
mark is a guess, and a call should not fail because of a guess.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import grpc

from agentmem.client.errors import AgentMemError, DeadlineExceeded, Unavailable, from_server
from agentmem.client.topology import Node, NodeRole, NodeState, Topology

# What a replica that has not answered yet is taken to need.
INITIAL_LATENCY_S = 0.001
# No latency counts as less, so that open calls tell even when answers come at once.
MIN_LATENCY_S = 0.0001
# In this time the weight of what was measured falls to 1/e.
LATENCY_DECAY_S = 2.0

# How long a node is passed over after its first failure, and at most.
FIRST_BLOCK_S = 0.1
MAX_BLOCK_S = 5.0


class Route(Enum):
    """The nodes that may answer a read, in groups; a later group serves when the earlier ones are used up."""

    REPLICAS = ((NodeRole.REPLICA,),)
    REPLICAS_THEN_WRITER = ((NodeRole.REPLICA,), (NodeRole.WRITER,))
    WRITER_THEN_REPLICAS = ((NodeRole.WRITER,), (NodeRole.REPLICA,))
    WRITER = ((NodeRole.WRITER,),)


class Verdict(Enum):
    """What a failed read means for what comes next."""

    # The node cannot serve now: pass it over for a while, ask another.
    ANOTHER_NODE = "another node"
    # The node is well and does not have the revision that was asked for yet: another may, the writer has it.
    FRESHER_NODE = "fresher node"
    # The node is well but cannot do this: one other replica may.
    ANOTHER_REPLICA_ONCE = "another replica once"
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


@dataclass(frozen=True, slots=True)
class Load:
    """What this client has seen of one node. Times are seconds of the client's monotonic clock.

    Attributes:
        latency_s: the moving average as of ``measured_at_s``; None before the first call has ended.
        outstanding: calls sent and not answered.
        silent_since_s: the last answer, or the first of the open calls if that is later.
        failures: how often it failed since its last answer; failures while it is blocked count as one.
        blocked_until_s: it is passed over until then.
    """

    latency_s: float | None = None
    measured_at_s: float = 0.0
    outstanding: int = 0
    silent_since_s: float = math.inf
    failures: int = 0
    failed_at_s: float = -math.inf
    blocked_until_s: float = -math.inf


IDLE = Load()


def cost(load: Load, now_s: float) -> float:
    """What a further call to the node would cost, in seconds."""
    return _latency_s(load, now_s) * (load.outstanding + 1)


def _latency_s(load: Load, now_s: float) -> float:
    known_s = INITIAL_LATENCY_S
    if load.latency_s is not None:
        decayed_s = load.latency_s * math.exp((load.measured_at_s - now_s) / LATENCY_DECAY_S)
        known_s = max(MIN_LATENCY_S, decayed_s)
    return max(known_s, now_s - load.silent_since_s) if load.outstanding else known_s


def blocked(load: Load, now_s: float) -> bool:
    """Whether the node is passed over now."""
    return now_s < load.blocked_until_s


def started(load: Load, *, now_s: float) -> Load:
    """The load after a call was sent."""
    silent_since_s = load.silent_since_s if load.outstanding else now_s
    return replace(load, outstanding=load.outstanding + 1, silent_since_s=silent_since_s)


def abandoned(load: Load, *, now_s: float) -> Load:
    """The load after a call ended without saying how the node is, such as one that the caller cancelled.

    The node's silence until then stays in its latency: without open calls it would look quick again.
    """
    return replace(load, outstanding=_one_less(load), latency_s=_latency_s(load, now_s), measured_at_s=now_s)


def answered(load: Load, *, sent_at_s: float, now_s: float) -> Load:
    """The load after an answer, be it an error that any node would give."""
    latency_s = now_s - sent_at_s
    average_s = latency_s
    if load.latency_s is not None and latency_s < load.latency_s:
        weight = math.exp((load.measured_at_s - now_s) / LATENCY_DECAY_S)
        average_s = weight * load.latency_s + (1 - weight) * latency_s
    after = replace(
        load,
        outstanding=_one_less(load),
        latency_s=average_s,
        measured_at_s=now_s,
        silent_since_s=now_s,
    )
    # The answer to an older call does not take back a failure that was seen since.
    return forgiven(after) if sent_at_s >= load.failed_at_s else after


def failed(load: Load, *, now_s: float, rng: random.Random) -> Load:
    """The load after a call found the node out of reach or unable to serve."""
    after = replace(abandoned(load, now_s=now_s), failed_at_s=now_s)
    if blocked(load, now_s):
        return after
    block_s = backoff_s(load.failures, first_s=FIRST_BLOCK_S, cap_s=MAX_BLOCK_S, rng=rng)
    return replace(after, failures=load.failures + 1, blocked_until_s=now_s + block_s)


def _one_less(load: Load) -> int:
    # A node that left and came back starts at zero while calls from before are still open.
    return max(0, load.outstanding - 1)


def forgiven(load: Load) -> Load:
    """The load of a node that is known to be well again."""
    if not load.failures:
        return load
    return replace(load, failures=0, failed_at_s=-math.inf, blocked_until_s=-math.inf)


def backoff_s(failures: int, *, first_s: float, cap_s: float, rng: random.Random) -> float:
    """The wait after this many earlier failures: doubling, capped, and drawn from its upper half.

    Drawn, so that clients that failed together do not come back together.
    """
    return min(cap_s, first_s * 2.0 ** min(failures, 32)) * rng.uniform(0.5, 1.0)


def attempt_deadline_s(*, now_s: float, deadline_s: float, has_alternative: bool) -> float:
    """Until when one node may take to answer a read.

    Half of the time that is left while another node can still be asked: a node that hangs with its connection
    open would else take all of it.
    """
    return now_s + (deadline_s - now_s) / 2 if has_alternative else deadline_s


def eligible(topology: Topology, role: NodeRole) -> tuple[Node, ...]:
    """The nodes of a role that may be asked at all.

    A replica has to be serving. The writer may be asked in any state, because there is only one: it answers
    for itself.
    """
    return tuple(
        node
        for node in topology.nodes
        if node.role is role and node.address and (role is NodeRole.WRITER or node.state is NodeState.SERVING)
    )


def choose(
    topology: Topology,
    loads: Mapping[str, Load],
    *,
    route: Route,
    tried: Collection[str],
    now_s: float,
    rng: random.Random,
) -> Node | None:
    """The node to ask next; None when every eligible one was tried."""
    groups = [
        [node for role in roles for node in eligible(topology, role) if node.address not in tried]
        for roles in route.value
    ]
    for wanted in (False, True):
        for group in groups:
            pool = [node for node in group if blocked(loads.get(node.address, IDLE), now_s) is wanted]
            if pool:
                return cheaper_of_two(pool, loads, now_s=now_s, rng=rng)
    return None


def cheaper_of_two(
    pool: Sequence[Node], loads: Mapping[str, Load], *, now_s: float, rng: random.Random
) -> Node:
    """The cheaper of two nodes drawn at random, the first when they cost the same. The pool is not empty."""
    if len(pool) == 1:
        return pool[0]
    first, second = rng.sample(pool, 2)
    first_cost = cost(loads.get(first.address, IDLE), now_s)
    return second if cost(loads.get(second.address, IDLE), now_s) < first_cost else first


def verdict(error: AgentMemError) -> Verdict:
    """What a read does after this error of one node."""
    if error.reason in ("OVERLOADED", "EMBEDDER_FAILED"):
        return Verdict.ANOTHER_REPLICA_ONCE
    if error.reason == "REPLICA_STALE":
        return Verdict.FRESHER_NODE
    # NOT_REPLICA: the node changed its role and the topology that says so is still on its way.
    if isinstance(error, Unavailable) or error.reason == "NOT_REPLICA":
        return Verdict.ANOTHER_NODE
    return Verdict.FINAL


def write_verdict(error: AgentMemError, *, in_doubt: bool) -> WriteVerdict:
    """What a write does after this error of one attempt.

    Args:
        in_doubt: an earlier attempt may have been carried out. Then an error that a writer gives before it
            looks for the request_id is no answer: only the answer to the repeated request is.
    """
    # A commit that failed may have reached the disk, as may a write whose answer was lost or came too late.
    if isinstance(error, DeadlineExceeded) or error.reason == "COMMIT_FAILED":
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
    if isinstance(error, Unavailable):
        again = in_doubt or error.reason in ("NOT_CONNECTED", "SHUTTING_DOWN")
        return WriteVerdict.NOT_DONE if again else WriteVerdict.FINAL
    if in_doubt and error.reason in ("OVERLOADED", "NOT_WRITER"):
        return WriteVerdict.NOT_DONE
    return WriteVerdict.FINAL


def after_update(
    loads: Mapping[str, Load], *, nodes: Collection[str], newly_serving: Collection[str]
) -> dict[str, Load]:
    """The loads under a new topology: nodes that left are forgotten, those freshly back are forgiven."""
    return {
        address: forgiven(load) if address in newly_serving else load
        for address, load in loads.items()
        if address in nodes
    }
