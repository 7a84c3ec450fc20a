"""Which node a client takes: tables of cases over immutable descriptions."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import grpc
import pytest

from agentmem.client import calls, errors, selection, topology, verdicts
from agentmem.client.selection import IDLE, Bound, Load, Route
from agentmem.client.topology import Node, NodeRole, NodeState, Topology
from agentmem.client.verdicts import Verdict, WriteVerdict
from agentmem.v1 import cluster_pb2

NOW_S = 1000.0


def node(name: str, role: NodeRole = NodeRole.REPLICA, state: NodeState = NodeState.SERVING) -> Node:
    return Node(name, role, f"{name}:1", state, applied_revision=0, searchable_revision=0)


def cluster(*nodes: Node, epoch: int = 1, cluster_id: str = "c") -> Topology:
    return Topology(cluster_id, epoch, nodes, answered_by="w")


W = node("w", NodeRole.WRITER)
A, B, C = node("a"), node("b"), node("c")
FAILED = Load(failures=1, failed_at_s=NOW_S - 0.1, blocked_until_s=NOW_S + 1)
RECOVERED = replace(FAILED, blocked_until_s=NOW_S - 0.01)


@pytest.mark.parametrize(
    ("nodes", "loads", "tried", "route", "expected"),
    [
        pytest.param((W, A), {}, (), Route.REPLICAS, {"a"}, id="the only replica"),
        pytest.param((W, A, B), {}, (), Route.REPLICAS, {"a", "b"}, id="either of two"),
        pytest.param((W, A, B), {}, ("a:1",), Route.REPLICAS, {"b"}, id="one that was not tried"),
        pytest.param(
            (W, A, B), {}, ("a:1", "b:1"), Route.REPLICAS, set(), id="a search never asks the writer"
        ),
        pytest.param((W, A, B), {}, ("a:1", "b:1"), Route.REPLICAS_THEN_WRITER, {"w"}, id="a get then does"),
        pytest.param((W,), {}, (), Route.REPLICAS_THEN_WRITER, {"w"}, id="no replicas at all"),
        pytest.param((), {}, (), Route.REPLICAS_THEN_WRITER, set(), id="nobody"),
        pytest.param((W, A), {}, (), Route.WRITER_THEN_REPLICAS, {"w"}, id="the writer first"),
        pytest.param((W, A), {}, ("w:1",), Route.WRITER_THEN_REPLICAS, {"a"}, id="then the replicas"),
        pytest.param(
            (W, node("a", state=NodeState.CATCHING_UP)),
            {},
            (),
            Route.REPLICAS,
            set(),
            id="not one catching up",
        ),
        pytest.param(
            (W, node("a", state=NodeState.DRAINING), B), {}, (), Route.REPLICAS, {"b"}, id="not one draining"
        ),
        pytest.param(
            (W, node("a", state=NodeState.UNKNOWN)), {}, (), Route.REPLICAS, set(), id="not one unknown"
        ),
        pytest.param(
            (replace(A, address=""),), {}, (), Route.REPLICAS, set(), id="not one without an address"
        ),
        pytest.param((W, A, B), {"a:1": FAILED}, (), Route.REPLICAS, {"b"}, id="not one that just failed"),
        pytest.param(
            (W, A, B), {"a:1": RECOVERED}, (), Route.REPLICAS, {"a", "b"}, id="again after its block"
        ),
        pytest.param(
            (W, A),
            {"a:1": FAILED},
            (),
            Route.REPLICAS_THEN_WRITER,
            {"w"},
            id="the writer before a failed replica",
        ),
        pytest.param(
            (W, A), {"a:1": FAILED}, (), Route.REPLICAS, {"a"}, id="a failed one when nothing else is left"
        ),
        pytest.param(
            (W, A),
            {"a:1": FAILED, "w:1": FAILED},
            (),
            Route.REPLICAS_THEN_WRITER,
            {"a"},
            id="of failed ones again the replica first",
        ),
    ],
)
def test_choose(
    nodes: tuple[Node, ...], loads: dict[str, Load], tried: tuple[str, ...], route: Route, expected: set[str]
) -> None:
    rng = random.Random(1)
    chosen = [
        selection.choose(cluster(*nodes), loads, route=route, tried=tried, now_s=NOW_S, rng=rng)
        for _ in range(50)
    ]
    assert {each.id for each in chosen if each is not None} == expected
    assert (None in chosen) == (not expected)


def test_the_cheaper_of_two_is_taken() -> None:
    loads = {
        "a:1": Load(latency_s=0.010, measured_at_s=NOW_S),
        "b:1": Load(latency_s=0.002, measured_at_s=NOW_S),
    }
    chosen = [
        selection.cheaper_of_two([A, B], loads, now_s=NOW_S, rng=random.Random(seed)) for seed in range(20)
    ]
    assert {each.id for each in chosen} == {"b"}


def test_calls_spread_evenly_over_equal_replicas_and_by_speed_over_unequal_ones() -> None:
    for latency_s, low, high in (
        ({"a:1": 0.004, "b:1": 0.004}, 480, 520),
        ({"a:1": 0.004, "b:1": 0.012}, 740, 760),
    ):
        loads = {address: Load(latency_s=each, measured_at_s=NOW_S) for address, each in latency_s.items()}
        rng = random.Random(1)
        counts: Counter[str] = Counter()
        for _ in range(1000):
            chosen = selection.cheaper_of_two([A, B], loads, now_s=NOW_S, rng=rng)
            loads[chosen.address] = selection.started(loads[chosen.address], now_s=NOW_S)
            counts[chosen.id] += 1
        assert low <= counts["a"] <= high, counts


@pytest.mark.parametrize(
    ("load", "expected_s"),
    [
        pytest.param(IDLE, selection.INITIAL_LATENCY_S, id="nothing known"),
        pytest.param(Load(outstanding=3), 4 * selection.INITIAL_LATENCY_S, id="times the open calls"),
        pytest.param(Load(latency_s=0.01, measured_at_s=NOW_S), 0.01, id="as measured"),
        pytest.param(Load(latency_s=0.01, measured_at_s=NOW_S, outstanding=1), 0.02, id="both"),
        pytest.param(
            Load(latency_s=0.01, measured_at_s=NOW_S, outstanding=1, silent_since_s=NOW_S - 0.5),
            2 * 0.5,
            id="silent for longer",
        ),
        pytest.param(
            Load(latency_s=0.01, measured_at_s=NOW_S, outstanding=1, silent_since_s=NOW_S - 0.005),
            2 * 0.01,
            id="silent for less",
        ),
        pytest.param(
            Load(latency_s=0.01, measured_at_s=NOW_S, silent_since_s=NOW_S - 0.5),
            0.01,
            id="nothing was asked",
        ),
        pytest.param(
            Load(latency_s=0.01, measured_at_s=NOW_S - selection.LATENCY_DECAY_S),
            0.01 / 2.718281828,
            id="decays",
        ),
        pytest.param(
            Load(latency_s=0.01, measured_at_s=NOW_S - 1000),
            selection.MIN_LATENCY_S,
            id="not below the least",
        ),
    ],
)
def test_cost(load: Load, expected_s: float) -> None:
    assert selection.cost(load, NOW_S) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("before", "sent_ago_s", "expected_latency_s"),
    [
        pytest.param(Load(outstanding=1), 0.02, 0.02, id="the first answer"),
        pytest.param(
            Load(outstanding=1, latency_s=0.01, measured_at_s=NOW_S - 0.001), 0.05, 0.05, id="a peak at once"
        ),
        pytest.param(
            Load(outstanding=1, latency_s=0.05, measured_at_s=NOW_S), 0.01, 0.05, id="a fast one by and by"
        ),
        pytest.param(
            Load(outstanding=1, latency_s=0.05, measured_at_s=NOW_S - 100),
            0.01,
            0.01,
            id="a fast one after long",
        ),
    ],
)
def test_answered(before: Load, sent_ago_s: float, expected_latency_s: float) -> None:
    after = selection.answered(before, sent_at_s=NOW_S - sent_ago_s, now_s=NOW_S)
    assert after.latency_s == pytest.approx(expected_latency_s)
    assert after.outstanding == 0


def test_a_failure_blocks_longer_each_time_up_to_the_cap_and_an_answer_forgives() -> None:
    rng, load, now_s = random.Random(1), IDLE, NOW_S
    for failures in range(12):
        load = selection.failed(selection.started(load, now_s=now_s), now_s=now_s, rng=rng)
        longest_s = min(selection.MAX_BLOCK_S, selection.FIRST_BLOCK_S * 2**failures)
        assert longest_s / 2 <= load.blocked_until_s - now_s <= longest_s
        assert load.failures == failures + 1
        assert load.outstanding == 0
        now_s = load.blocked_until_s
    load = selection.answered(selection.started(load, now_s=now_s), sent_at_s=now_s, now_s=now_s + 0.01)
    assert load.failures == 0
    assert not selection.blocked(load, now_s)


@pytest.mark.parametrize("end", ["abandoned", "failed"])
def test_silence_counts_from_the_first_open_call_or_the_last_answer_and_outlasts_the_calls(end: str) -> None:
    rng = random.Random(1)
    load = Load(latency_s=0.001, measured_at_s=NOW_S - 60, silent_since_s=NOW_S - 60)
    load = selection.started(load, now_s=NOW_S)
    load = selection.started(load, now_s=NOW_S + 2)
    assert selection.cost(load, NOW_S + 3) == pytest.approx(3 * 3)
    load = selection.answered(load, sent_at_s=NOW_S, now_s=NOW_S + 3)
    assert load.silent_since_s == NOW_S + 3
    if end == "failed":
        load = selection.failed(load, now_s=NOW_S + 8, rng=rng)
    else:
        load = selection.abandoned(load, now_s=NOW_S + 8)
    assert load.outstanding == 0
    assert selection.cost(load, NOW_S + 8) == pytest.approx(5)
    assert selection.cost(load, NOW_S + 10) < 2
    load = selection.started(load, now_s=NOW_S + 60)
    assert selection.cost(load, NOW_S + 60) < 0.001


def test_few_calls_get_stuck_on_a_replica_that_hangs() -> None:
    """Of 32 callers; b answers all of them every 5 ms, a never."""
    rng = random.Random(1)
    loads = {each.address: Load(latency_s=0.005, measured_at_s=NOW_S) for each in (A, B)}
    stuck = 0
    for tick in range(1000):
        now_s = NOW_S + tick * 0.005
        while loads["b:1"].outstanding:
            loads["b:1"] = selection.answered(loads["b:1"], sent_at_s=now_s - 0.005, now_s=now_s)
        for _ in range(32 - stuck):
            chosen = selection.cheaper_of_two([A, B], loads, now_s=now_s, rng=rng).address
            loads[chosen] = selection.started(loads[chosen], now_s=now_s)
            stuck += chosen == "a:1"
    assert stuck <= 20  # half of the first calls, and hardly one after those


def test_calls_that_fail_together_count_as_one_failure() -> None:
    rng = random.Random(1)
    once = selection.failed(Load(outstanding=2), now_s=NOW_S, rng=rng)
    twice = selection.failed(once, now_s=NOW_S + 0.001, rng=rng)
    assert twice.failures == 1
    assert twice.blocked_until_s == once.blocked_until_s
    assert twice.outstanding == 0


def test_an_answer_to_an_older_call_does_not_take_back_a_failure() -> None:
    load = selection.failed(Load(outstanding=2), now_s=NOW_S, rng=random.Random(1))
    load = selection.answered(load, sent_at_s=NOW_S - 1, now_s=NOW_S + 0.001)
    assert selection.blocked(load, NOW_S + 0.001)


def faulty_times(count: int, load: Load = IDLE) -> Load:
    rng = random.Random(1)
    for _ in range(count):
        load = selection.faulty(
            selection.started(load, now_s=NOW_S), sent_at_s=NOW_S - 0.01, now_s=NOW_S, rng=rng
        )
    return load


def test_a_node_with_faults_in_a_row_is_ejected_for_longer_each_time() -> None:
    assert not selection.ejected(faulty_times(selection.EJECTED_AFTER - 1), NOW_S)
    load = faulty_times(selection.EJECTED_AFTER)
    longest_s = []
    for _ in range(8):
        assert selection.ejected(load, load.ejected_until_s - 0.001)
        assert not selection.ejected(load, load.ejected_until_s)
        assert load.back_at_s == load.ejected_until_s
        longest_s.append(load.ejected_until_s - NOW_S)
        # One more fault after it came back, and it is out again.
        load = faulty_times(1, replace(load, ejected_until_s=NOW_S))
    assert selection.FIRST_EJECTION_S / 2 <= longest_s[0] <= selection.FIRST_EJECTION_S
    assert selection.MAX_EJECTION_S / 2 <= longest_s[-1] <= selection.MAX_EJECTION_S
    well = selection.answered(load, sent_at_s=NOW_S, now_s=NOW_S + 0.01)
    assert (well.faults, well.ejections) == (0, 0)
    assert not selection.ejected(well, NOW_S + 0.01)


def test_an_answer_between_two_faults_keeps_a_node_in() -> None:
    load = IDLE
    for _ in range(10):
        load = faulty_times(selection.EJECTED_AFTER - 1, load)
        load = selection.answered(load, sent_at_s=NOW_S, now_s=NOW_S + 0.01)
    assert not selection.ejected(load, NOW_S)


def ejected_until(seconds: float) -> Load:
    return Load(faults=3, ejections=1, ejected_until_s=NOW_S + seconds)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        pytest.param({}, set(), id="nobody"),
        pytest.param({"a:1": ejected_until(1)}, {"a:1"}, id="one of four"),
        pytest.param({"a:1": ejected_until(-1)}, set(), id="it is back"),
        pytest.param({"a:1": ejected_until(1), "b:1": ejected_until(2)}, {"a:1", "b:1"}, id="half of them"),
        pytest.param(
            {"a:1": ejected_until(1), "b:1": ejected_until(2), "c:1": ejected_until(3)},
            {"b:1", "c:1"},
            id="of more than half the last ones",
        ),
        pytest.param(
            {"a:1": ejected_until(1), "b:1": FAILED, "c:1": FAILED},
            {"b:1", "c:1"},
            id="those out of reach count too",
        ),
        pytest.param(
            {"a:1": FAILED, "b:1": FAILED, "c:1": FAILED},
            {"a:1", "b:1", "c:1"},
            id="out of reach is out of reach",
        ),
    ],
)
def test_passed_over(loads: dict[str, Load], expected: set[str]) -> None:
    assert selection.passed_over((A, B, C, node("d")), loads, NOW_S) == expected


@pytest.mark.parametrize(
    ("back_for_s", "share"),
    [(-1.0, 0.1), (0.0, 0.1), (5.0, 0.55), (10.0, 1.0), (1000.0, 1.0)],
    ids=str,
)
def test_a_node_that_is_back_costs_more_at_first(back_for_s: float, share: float) -> None:
    load = Load(latency_s=0.01, measured_at_s=NOW_S, back_at_s=NOW_S - back_for_s)
    assert selection.cost(load, NOW_S) == pytest.approx(0.01 / share)


def test_a_node_that_is_back_gets_its_share_by_and_by() -> None:
    """Of 64 open calls, each second after b came back; both are equally quick."""
    shares = []
    for second in range(0, 12, 2):
        rng = random.Random(1)
        loads = {each.address: Load(latency_s=0.005, measured_at_s=NOW_S + second) for each in (A, B)}
        loads["b:1"] = replace(loads["b:1"], back_at_s=NOW_S)
        for _ in range(64):
            chosen = selection.cheaper_of_two([A, B], loads, now_s=NOW_S + second, rng=rng).address
            loads[chosen] = selection.started(loads[chosen], now_s=NOW_S + second)
        shares.append(loads["b:1"].outstanding)
    assert shares == sorted(shares)
    assert shares[0] <= 8
    assert shares[-1] == 32


def test_failures_in_a_row_bring_a_node_back_slowly() -> None:
    rng, load, now_s = random.Random(1), IDLE, NOW_S
    for count in range(1, selection.EJECTED_AFTER + 1):
        load = selection.failed(selection.started(load, now_s=now_s), now_s=now_s, rng=rng)
        now_s = load.blocked_until_s
        assert (load.back_at_s == now_s) == (count >= selection.EJECTED_AFTER)


AT_7 = replace(A, applied_revision=9, searchable_revision=7)
AT_9 = replace(B, applied_revision=9, searchable_revision=9)


@pytest.mark.parametrize(
    ("loads", "bound", "age_s", "expected"),
    [
        pytest.param({}, selection.UNBOUND, 0.0, {"a", "b"}, id="nothing is asked for"),
        pytest.param({}, Bound(8, is_search=True), 0.1, {"b"}, id="a search that only one shows"),
        pytest.param({}, Bound(8), 0.1, {"a", "b"}, id="a get that both show"),
        pytest.param({}, Bound(10), 0.1, {"a", "b"}, id="what nobody is known to show"),
        pytest.param({}, Bound(8, is_search=True), 5.0, {"a", "b"}, id="what was known long ago"),
        pytest.param({"a:1": Load(behind_until_s=NOW_S + 0.1)}, Bound(8), 5.0, {"b"}, id="one said so"),
        pytest.param(
            {"a:1": Load(behind_until_s=NOW_S + 0.1)}, Bound(is_fresh=True), 5.0, {"b"}, id="of freshness too"
        ),
        pytest.param(
            {"a:1": Load(behind_until_s=NOW_S + 0.1)}, selection.UNBOUND, 5.0, {"a", "b"}, id="who cares"
        ),
        pytest.param(
            {"a:1": Load(behind_until_s=NOW_S + 0.1), "b:1": FAILED}, Bound(8), 5.0, {"a"}, id="better late"
        ),
    ],
)
def test_a_node_that_is_known_to_be_behind_comes_last(
    loads: dict[str, Load], bound: Bound, age_s: float, expected: set[str]
) -> None:
    rng = random.Random(1)
    chosen = [
        selection.choose(
            cluster(W, AT_7, AT_9),
            loads,
            route=Route.REPLICAS,
            tried=(),
            now_s=NOW_S,
            rng=rng,
            bound=bound,
            topology_age_s=age_s,
        )
        for _ in range(50)
    ]
    assert {each.id for each in chosen if each is not None} == expected


def test_a_node_that_is_behind_is_not_slow() -> None:
    before = selection.started(Load(latency_s=0.001, measured_at_s=NOW_S), now_s=NOW_S)
    after = selection.stale(before, now_s=NOW_S + 0.5)
    assert (after.latency_s, after.outstanding) == (0.001, 0)
    assert after.behind_until_s > NOW_S + 0.5


def test_open_calls_never_count_below_zero() -> None:
    assert selection.abandoned(IDLE, now_s=NOW_S).outstanding == 0


def test_after_an_update_the_gone_are_forgotten_and_the_returned_forgiven() -> None:
    loads = {"a:1": FAILED, "b:1": FAILED, "c:1": FAILED}
    after = selection.after_update(loads, nodes={"a:1", "b:1"}, newly_serving={"b:1"}, now_s=NOW_S)
    assert after == {"a:1": FAILED, "b:1": replace(IDLE, back_at_s=NOW_S)}


@pytest.mark.parametrize(
    ("failures", "longest_s"), [(0, 0.1), (1, 0.2), (4, 1.6), (5, 2.0), (1000, 2.0)], ids=str
)
def test_backoff(failures: int, longest_s: float) -> None:
    rng = random.Random(1)
    waits = [selection.backoff_s(failures, first_s=0.1, cap_s=2.0, rng=rng) for _ in range(200)]
    assert longest_s / 2 <= min(waits) < longest_s * 0.6
    assert longest_s * 0.9 < max(waits) <= longest_s


@pytest.mark.parametrize(
    ("deadline_s", "has_alternative", "expected_s"),
    [
        pytest.param(NOW_S + 10, True, NOW_S + 5, id="half of the time while another can be asked"),
        pytest.param(NOW_S + 10, False, NOW_S + 10, id="all of it when it is the last"),
        pytest.param(NOW_S + 0.01, True, NOW_S + 0.005, id="however little is left"),
        pytest.param(NOW_S, True, NOW_S, id="nothing of nothing"),
    ],
)
def test_attempt_deadline(deadline_s: float, has_alternative: bool, expected_s: float) -> None:
    found_s = selection.attempt_deadline_s(
        now_s=NOW_S, deadline_s=deadline_s, has_alternative=has_alternative
    )
    assert found_s == pytest.approx(expected_s)


def test_attempts_at_nodes_that_hang_leave_time_for_each_and_end_with_the_deadline() -> None:
    deadline_s, now_s, ends = NOW_S + 8, NOW_S, []
    for nodes_left in (2, 1, 0):
        now_s = selection.attempt_deadline_s(
            now_s=now_s, deadline_s=deadline_s, has_alternative=nodes_left > 0
        )
        ends.append(now_s - NOW_S)
    assert ends == [4, 6, 8]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Unavailable("", reason="NO_ANSWER"), Verdict.ANOTHER_NODE),
        (errors.Unavailable("lost"), Verdict.ANOTHER_NODE),
        (errors.Unavailable("", reason="REPLICA_NOT_READY"), Verdict.ANOTHER_NODE),
        (errors.Unavailable("", reason="SHUTTING_DOWN"), Verdict.ANOTHER_NODE),
        (errors.FailedPrecondition("", reason="NOT_REPLICA"), Verdict.ANOTHER_NODE),
        (errors.Unavailable("", reason="REPLICA_STALE"), Verdict.FRESHER_NODE),
        (errors.Unavailable("", reason="PAST_NOT_READY"), Verdict.FRESHER_NODE),
        (errors.ResourceExhausted("", reason="PAST_TOO_LARGE"), Verdict.FINAL),
        (errors.ResourceExhausted("", reason="OVERLOADED"), Verdict.ANOTHER_REPLICA_ONCE),
        (errors.Unavailable("", reason="EMBEDDER_FAILED"), Verdict.ANOTHER_REPLICA_ONCE),
        (errors.ResourceExhausted("the answer is too large"), Verdict.FINAL),
        (errors.DeadlineExceeded("late"), Verdict.FINAL),
        (errors.InvalidArgument("", reason="FILTER_UNSUPPORTED"), Verdict.FINAL),
        (errors.FailedPrecondition("", reason="DIMENSION_MISMATCH"), Verdict.FINAL),
        (errors.ServerError("bug"), Verdict.ANOTHER_NODE_ONCE),
        (errors.ServerError("", code=grpc.StatusCode.UNIMPLEMENTED), Verdict.FINAL),
        (errors.DataLoss("", reason="CORRUPT_RECORD"), Verdict.ANOTHER_NODE_ONCE),
        (errors.RevisionLost("", reason="REVISION_LOST"), Verdict.FINAL),
    ],
    ids=lambda case: f"{case.reason}" if isinstance(case, errors.AgentMemError) else case.name,
)
def test_verdict(error: errors.AgentMemError, expected: Verdict) -> None:
    assert verdicts.verdict(error) is expected


LOST = errors.from_status(grpc.StatusCode.UNAVAILABLE, "socket closed", b"")
CANCELLED = errors.from_status(grpc.StatusCode.CANCELLED, "", b"")


@pytest.mark.parametrize(
    ("error", "first", "in_doubt"),
    [
        (LOST, WriteVerdict.IN_DOUBT, WriteVerdict.IN_DOUBT),
        (CANCELLED, WriteVerdict.IN_DOUBT, WriteVerdict.IN_DOUBT),
        (errors.DeadlineExceeded("late"), WriteVerdict.IN_DOUBT, WriteVerdict.IN_DOUBT),
        (errors.Unavailable("", reason="COMMIT_FAILED"), WriteVerdict.IN_DOUBT, WriteVerdict.IN_DOUBT),
        (errors.Unavailable("", reason="NOT_CONNECTED"), WriteVerdict.NOT_DONE, WriteVerdict.NOT_DONE),
        (errors.Unavailable("", reason="SHUTTING_DOWN"), WriteVerdict.NOT_DONE, WriteVerdict.NOT_DONE),
        # Given before the writer looks whether it knows the request.
        (errors.Unavailable("", reason="EMBEDDER_FAILED"), WriteVerdict.FINAL, WriteVerdict.NOT_DONE),
        (errors.ResourceExhausted("", reason="OVERLOADED"), WriteVerdict.FINAL, WriteVerdict.NOT_DONE),
        (errors.FailedPrecondition("", reason="NOT_WRITER"), WriteVerdict.NOT_DONE, WriteVerdict.NOT_DONE),
        # A promotion is on its way.
        (errors.FailedPrecondition("", reason="STALE_EPOCH"), WriteVerdict.NOT_DONE, WriteVerdict.NOT_DONE),
        (errors.Unavailable("", reason="HANDING_OVER"), WriteVerdict.NOT_DONE, WriteVerdict.NOT_DONE),
        # Given after it.
        (errors.VersionMismatch("", reason="VERSION_MISMATCH"), WriteVerdict.FINAL, WriteVerdict.FINAL),
        (errors.ResourceExhausted("", reason="STORE_FULL"), WriteVerdict.FINAL, WriteVerdict.FINAL),
        (errors.InvalidArgument("", reason="REQUEST_ID_REUSED"), WriteVerdict.FINAL, WriteVerdict.FINAL),
    ],
    ids=lambda case: case.reason if isinstance(case, errors.AgentMemError) else "",
)
def test_write_verdict(error: errors.AgentMemError, first: WriteVerdict, in_doubt: WriteVerdict) -> None:
    assert verdicts.write_verdict(error, in_doubt=False) is first
    assert verdicts.write_verdict(error, in_doubt=True) is in_doubt


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (calls.NotSent("", reason="NOT_CONNECTED"), False),
        (errors.Unavailable("", reason="REPLICA_STALE"), False),
        (errors.FailedPrecondition("", reason="NOT_WRITER"), False),
        (errors.Unavailable("", reason="HANDING_OVER"), False),
        (errors.Unavailable("", reason="NO_ANSWER"), True),
        (errors.Unavailable("lost"), True),
        (errors.ResourceExhausted("", reason="OVERLOADED"), True),
        (errors.DataLoss("", reason="CORRUPT_RECORD"), True),
    ],
    ids=lambda case: case.reason if isinstance(case, errors.AgentMemError) else "",
)
def test_what_counts_against_the_retry_budget(error: errors.AgentMemError, expected: bool) -> None:
    assert verdicts.costs_a_retry(error) is expected


def test_a_call_that_the_server_cancelled_goes_to_another_node() -> None:
    error = errors.from_status(grpc.StatusCode.CANCELLED, "", b"")
    assert verdicts.verdict(error) is Verdict.ANOTHER_NODE


@pytest.mark.parametrize(
    ("known", "received", "problem"),
    [
        pytest.param(None, cluster(W), "", id="the first"),
        pytest.param(cluster(W), cluster(W, A), "", id="a change"),
        pytest.param(cluster(W, epoch=1), cluster(W, epoch=2), "", id="a promotion"),
        pytest.param(cluster(W, epoch=2), cluster(W, epoch=1), "epoch 1, behind 2", id="before a promotion"),
        pytest.param(cluster(W), cluster(W, cluster_id="x"), "belongs to cluster x", id="another cluster"),
    ],
)
def test_updated(known: Topology | None, received: Topology, problem: str) -> None:
    if problem:
        with pytest.raises(topology.Refused, match=problem):
            topology.updated(known, received)
    else:
        assert topology.updated(known, received) is received


@pytest.mark.parametrize(
    ("known", "received", "expected"),
    [
        pytest.param(None, cluster(W, A), {"w:1", "a:1"}, id="all at first"),
        pytest.param(cluster(W, A), cluster(W, A), set(), id="no change"),
        pytest.param(cluster(W), cluster(W, A), {"a:1"}, id="came"),
        pytest.param(cluster(W, A), cluster(W), set(), id="went"),
        pytest.param(cluster(node("a", state=NodeState.CATCHING_UP)), cluster(A), {"a:1"}, id="caught up"),
        pytest.param(cluster(replace(A, id="old")), cluster(A), {"a:1"}, id="another process at its address"),
    ],
)
def test_newly_serving(known: Topology | None, received: Topology, expected: set[str]) -> None:
    assert topology.newly_serving(known, received) == expected


@pytest.mark.parametrize(
    ("known", "last", "expected"),
    [
        pytest.param(None, "", ("x:1", "a:1"), id="the contact points at first"),
        pytest.param(None, "x:1", ("a:1", "x:1"), id="the one that failed last comes last"),
        pytest.param(cluster(W, A, B), "", ("w:1", "a:1", "b:1", "x:1"), id="the writer first, each once"),
        pytest.param(cluster(W, A, B), "w:1", ("a:1", "b:1", "x:1", "w:1"), id="unless it failed"),
    ],
)
def test_watch_order(known: Topology | None, last: str, expected: tuple[str, ...]) -> None:
    assert topology.watch_order(known, ("x:1", "a:1"), last) == expected


def test_topology_from_proto_with_a_role_and_a_state_of_a_later_release() -> None:
    message = cluster_pb2.Topology(cluster_id="c", epoch=3, answered_by="w")
    message.nodes.add(
        id="w",
        role=cluster_pb2.NODE_ROLE_WRITER,
        address="w:1",
        state=cluster_pb2.NODE_STATE_SERVING,
        applied_revision=7,
        searchable_revision=6,
    )
    message.nodes.add(id="x", address="x:1").MergeFromString(b"\x10\x63\x20\x63")
    received = topology.from_proto(message)
    assert received.writer == Node("w", NodeRole.WRITER, "w:1", NodeState.SERVING, 7, 6)
    assert received.nodes[1] == Node("x", NodeRole.UNKNOWN, "x:1", NodeState.UNKNOWN, 0, 0)
    assert received.replicas == ()
    assert (received.epoch, received.answered_by) == (3, "w")
