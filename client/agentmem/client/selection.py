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

A node that answers, but with faults of its own time after time, is ejected for longer, though never more than
half of the nodes at once. One that comes back is cold: its cost is multiplied at first, so that its share
grows by and by.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

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

# After this many failures or faults in a row a node comes back slowly, and for faults it is ejected: for so
# long the first time, and at most.
EJECTED_AFTER = 3
FIRST_EJECTION_S = 1.0
MAX_EJECTION_S = 30.0
# In this time a node that is back gets from this share of the calls to all of its own.
SLOW_START_S = 10.0
SLOW_START_SHARE = 0.1

# What is known of how far a node is behind is true for so long.
BEHIND_S = 0.5


class Route(Enum):
    """The nodes that may answer a read, in groups; a later group serves when the earlier ones are used up."""

    REPLICAS = ((NodeRole.REPLICA,),)
    REPLICAS_THEN_WRITER = ((NodeRole.REPLICA,), (NodeRole.WRITER,))
    WRITER_THEN_REPLICAS = ((NodeRole.WRITER,), (NodeRole.REPLICA,))
    WRITER = ((NodeRole.WRITER,),)


@dataclass(frozen=True, slots=True)
class Load:
    """What this client has seen of one node. Times are seconds of the client's monotonic clock.

    Attributes:
        latency_s: the moving average as of ``measured_at_s``; None before the first call has ended.
        outstanding: calls sent and not answered.
        silent_since_s: the last answer, or the first of the open calls if that is later.
        failures: how often it failed since its last answer; failures while it is blocked count as one.
        blocked_until_s: it is passed over until then.
        faults: how often in a row it answered with a fault of its own.
        ejections: how often in a row it was ejected for that.
        ejected_until_s: it is passed over until then, while no more than half of the nodes are.
        back_at_s: when it came back, or will; it gets its share of calls by and by.
        behind_until_s: it did not have what a read asked for; reads that ask for much try others before.
    """

    latency_s: float | None = None
    measured_at_s: float = 0.0
    outstanding: int = 0
    silent_since_s: float = math.inf
    failures: int = 0
    failed_at_s: float = -math.inf
    blocked_until_s: float = -math.inf
    faults: int = 0
    ejections: int = 0
    ejected_until_s: float = -math.inf
    back_at_s: float = -math.inf
    behind_until_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Bound:
    """What the answer to a read must show, as far as it tells which node to ask.

    Attributes:
        revision: every write up to it.
        is_search: of searches, which show a write later than gets do.
        is_fresh: it must also be new in another way.
    """

    revision: int = 0
    is_search: bool = False
    is_fresh: bool = False


UNBOUND = Bound()

IDLE = Load()


def cost(load: Load, now_s: float) -> float:
    """What a further call to the node would cost, in seconds; more while it is just back."""
    return _latency_s(load, now_s) * (load.outstanding + 1) / _share(load, now_s)


def _share(load: Load, now_s: float) -> float:
    """The share of its calls that a node gets, which grows from when it is back."""
    back_for_s = now_s - load.back_at_s
    if back_for_s >= SLOW_START_S:
        return 1.0
    return SLOW_START_SHARE + (1 - SLOW_START_SHARE) * max(0.0, back_for_s) / SLOW_START_S


def _latency_s(load: Load, now_s: float) -> float:
    known_s = INITIAL_LATENCY_S
    if load.latency_s is not None:
        decayed_s = load.latency_s * math.exp((load.measured_at_s - now_s) / LATENCY_DECAY_S)
        known_s = max(MIN_LATENCY_S, decayed_s)
    return max(known_s, now_s - load.silent_since_s) if load.outstanding else known_s


def blocked(load: Load, now_s: float) -> bool:
    """Whether the node is passed over now."""
    return now_s < load.blocked_until_s


def ejected(load: Load, now_s: float) -> bool:
    """Whether the node is passed over for its faults, if not too many are."""
    return now_s < load.ejected_until_s


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


def stale(load: Load, *, now_s: float) -> Load:
    """The load after a node said that it does not have what was asked for yet.

    It has waited for that, so the time says nothing about how quick it is.
    """
    return replace(load, outstanding=_one_less(load), silent_since_s=now_s, behind_until_s=now_s + BEHIND_S)


def faulty(load: Load, *, sent_at_s: float, now_s: float, rng: random.Random) -> Load:
    """The load after an answer that says that something is wrong with the node."""
    after = replace(
        answered(load, sent_at_s=sent_at_s, now_s=now_s),
        faults=load.faults + 1,
        ejections=load.ejections,
    )
    if after.faults < EJECTED_AFTER or ejected(load, now_s):
        return after
    out_s = backoff_s(load.ejections, first_s=FIRST_EJECTION_S, cap_s=MAX_EJECTION_S, rng=rng)
    until_s = now_s + out_s
    return replace(after, ejections=load.ejections + 1, ejected_until_s=until_s, back_at_s=until_s)


def failed(load: Load, *, now_s: float, rng: random.Random) -> Load:
    """The load after a call found the node out of reach or unable to serve."""
    after = replace(abandoned(load, now_s=now_s), failed_at_s=now_s)
    if blocked(load, now_s):
        return after
    block_s = backoff_s(load.failures, first_s=FIRST_BLOCK_S, cap_s=MAX_BLOCK_S, rng=rng)
    failures, until_s = load.failures + 1, now_s + block_s
    back_at_s = until_s if failures >= EJECTED_AFTER else load.back_at_s
    return replace(after, failures=failures, blocked_until_s=until_s, back_at_s=back_at_s)


def _one_less(load: Load) -> int:
    # A node that left and came back starts at zero while calls from before are still open.
    return max(0, load.outstanding - 1)


def forgiven(load: Load) -> Load:
    """The load of a node that is known to be well again."""
    if not load.failures and not load.faults:
        return load
    return replace(
        load,
        failures=0,
        failed_at_s=-math.inf,
        blocked_until_s=-math.inf,
        faults=0,
        ejections=0,
        ejected_until_s=-math.inf,
    )


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
    bound: Bound = UNBOUND,
    topology_age_s: float = math.inf,
) -> Node | None:
    """The node to ask next; None when every eligible one was tried.

    Args:
        bound: nodes that are known not to have it yet come after the others of their group.
        topology_age_s: for how long the revisions in the topology have been known.
    """
    groups = [
        [node for role in roles for node in eligible(topology, role) if node.address not in tried]
        for roles in route.value
    ]
    for wanted in (False, True):
        for group in groups:
            out = passed_over(group, loads, now_s)
            pool = [node for node in group if (node.address in out) is wanted]
            level = [node for node in pool if not _behind(node, loads, bound, now_s, topology_age_s)]
            if pool:
                return cheaper_of_two(level or pool, loads, now_s=now_s, rng=rng)
    return None


def has_another(topology: Topology, *, route: Route, tried: Collection[str]) -> bool:
    """Whether ``choose`` would find a node."""
    return any(
        node.address not in tried
        for roles in route.value
        for role in roles
        for node in eligible(topology, role)
    )


def passed_over(group: Sequence[Node], loads: Mapping[str, Load], now_s: float) -> frozenset[str]:
    """The addresses of a group that are asked only when the others were.

    Those that cannot be reached, however many; and of those ejected for their faults no more than half of the
    group, the last ones first: if most nodes have faults, then it is not the nodes.
    """
    known = {node.address: loads.get(node.address, IDLE) for node in group}
    if all(load.blocked_until_s <= now_s and load.ejected_until_s <= now_s for load in known.values()):
        return frozenset()  # which is how it mostly is
    out = {address for address, load in known.items() if blocked(load, now_s)}
    others = [address for address, load in known.items() if address not in out and ejected(load, now_s)]
    others.sort(key=lambda address: known[address].ejected_until_s, reverse=True)
    return frozenset(out.union(others[: max(0, len(group) // 2 - len(out))]))


def _behind(node: Node, loads: Mapping[str, Load], bound: Bound, now_s: float, topology_age_s: float) -> bool:
    """Whether a node is known not to have what a read asks for. Mostly it is not: replicas are quick."""
    if not bound.revision and not bound.is_fresh:
        return False
    if now_s < loads.get(node.address, IDLE).behind_until_s:
        return True
    shown = node.searchable_revision if bound.is_search else node.applied_revision
    return topology_age_s < BEHIND_S and shown < bound.revision


def cheaper_of_two(
    pool: Sequence[Node], loads: Mapping[str, Load], *, now_s: float, rng: random.Random
) -> Node:
    """The cheaper of two nodes drawn at random, the first when they cost the same. The pool is not empty."""
    if len(pool) == 1:
        return pool[0]
    first, second = rng.sample(pool, 2)
    first_cost = cost(loads.get(first.address, IDLE), now_s)
    return second if cost(loads.get(second.address, IDLE), now_s) < first_cost else first


def after_update(
    loads: Mapping[str, Load], *, nodes: Collection[str], newly_serving: Collection[str], now_s: float
) -> dict[str, Load]:
    """The loads under a new topology: nodes that left are forgotten, those freshly back are forgiven.

    These begin slowly, whether they were here before or not.
    """
    kept = {address: load for address, load in loads.items() if address in nodes}
    back = {
        address: replace(forgiven(loads.get(address, IDLE)), back_at_s=now_s)
        for address in newly_serving
        if address in nodes
    }
    return kept | back
