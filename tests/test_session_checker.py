"""The checker of histories, on histories made by hand: good ones pass, each kind of bad one is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from session_checker import (
    Findings,
    History,
    Outcome,
    Read,
    Version,
    WatchedPart,
    Write,
    check,
    common_revision,
    is_lost,
)

from agentmem.client import Position

TEA = ("ns", "tea")
OTHER = ("ns", "other")


def wrote(
    counter: int,
    at_s: float,
    revision: int,
    *,
    epoch: int = 1,
    key: tuple[str, str] = TEA,
    session: str = "s",
    is_deletion: bool = False,
    is_replicated: bool = False,
) -> Write:
    """Acknowledged half a second after it began."""
    return Write(
        *(session, key, "s", counter, is_deletion, at_s, at_s + 0.5, Outcome.ACKNOWLEDGED),
        Position(epoch, revision),
        is_replicated,
    )


def unanswered(counter: int, at_s: float, outcome: Outcome = Outcome.IN_DOUBT) -> Write:
    return Write("s", TEA, "s", counter, False, at_s, outcome=outcome)


def read(
    at_s: float,
    revision: int,
    shown: int | None,
    *,
    epoch: int = 1,
    key: tuple[str, str] = TEA,
    session: str = "s",
    within_s: float | None = None,
    was_lost: bool = False,
) -> Read:
    """Answered a tenth of a second after it began."""
    return Read(
        *(session, "get", at_s, at_s + 0.1, (key,), {} if shown is None else {key: shown}),
        Position(epoch, revision),
        staleness_s=within_s,
        was_lost=was_lost,
    )


def stored(*writes: Write) -> list[Version]:
    """The versions that the writes made."""
    return [
        Version(
            write.position.revision, write.key, write.counter, None if write.is_deletion else write.counter
        )
        for write in writes
        if write.position is not None
    ]


def kinds(
    operations: Sequence[Write | Read],
    *,
    epochs: Sequence[tuple[int, int]] = (),
    promoted: Sequence[tuple[int, int]] = (),
    versions: Sequence[Version] | None = None,
    set_aside: Sequence[Version] = (),
    watched: Sequence[WatchedPart] = (),
    handed_over: frozenset[int] = frozenset(),
    may_lose_replicated: frozenset[int] = frozenset(),
) -> list[str]:
    """The kinds of violations. Unless said, the store has all that no promotion left behind."""
    return [
        violation.kind
        for violation in findings(
            operations,
            epochs=epochs,
            promoted=promoted,
            versions=versions,
            set_aside=set_aside,
            watched=watched,
            handed_over=handed_over,
            may_lose_replicated=may_lose_replicated,
        ).violations
    ]


def findings(
    operations: Sequence[Write | Read],
    *,
    epochs: Sequence[tuple[int, int]] = (),
    promoted: Sequence[tuple[int, int]] = (),
    versions: Sequence[Version] | None = None,
    set_aside: Sequence[Version] = (),
    watched: Sequence[WatchedPart] = (),
    handed_over: frozenset[int] = frozenset(),
    may_lose_replicated: frozenset[int] = frozenset(),
) -> Findings:
    writes = [
        each
        for each in operations
        if isinstance(each, Write) and each.position and not is_lost(epochs, each.position)
    ]
    return check(
        History(
            list(operations),
            list(watched),
            epochs,
            promoted,
            stored(*writes) if versions is None else versions,
            set_aside,
            handed_over,
            may_lose_replicated,
        )
    )


ADD, UPDATE, DELETE = wrote(1, 1, 10), wrote(2, 2, 20), wrote(3, 3, 30, is_deletion=True)
AGAIN = wrote(4, 4, 40)


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [read(1, 0, None)],
        [ADD, read(2, 10, 1)],
        # Another session has seen nothing, and its answer says how old it is.
        [ADD, read(2, 9, None, session="t")],
        [ADD, UPDATE, read(3, 10, 1, session="t"), read(4, 20, 2, session="t")],
        # An answer may show more than its revision says.
        [ADD, UPDATE, read(3, 20, 2), read(4, 20, 2, session="t")],
        [ADD, UPDATE, DELETE, read(4, 30, None)],
        [ADD, UPDATE, DELETE, AGAIN, read(5, 40, 4)],
        # What is being written may be seen already, or not yet.
        [ADD, UPDATE, read(2.1, 20, 2, session="t"), read(2.2, 20, 2, session="t")],
        [ADD, UPDATE, read(2.1, 19, 1, session="t", within_s=0)],
        [ADD, unanswered(2, 2), read(3, 10, 1), read(4, 11, 2), read(5, 12, 2)],
        [ADD, unanswered(2, 2), read(3, 10, 1), read(4, 10, 1)],
        # Bounds count from the acknowledgement to the beginning of the read.
        [ADD, read(2, 5, None, session="t", within_s=1)],
        [ADD, read(1.5, 5, None, session="", within_s=0)],
        [ADD, read(1.6, 10, 1, session="", within_s=0)],
    ],
)
def test_good_histories_pass(operations: list[Write | Read]) -> None:
    assert kinds(operations) == []


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        # Its own write is not there, or an older version is, or a deleted one.
        ([ADD, read(2, 10, None)], {"session went back", "less than its revision"}),
        ([ADD, read(2, 9, None)], {"session went back"}),
        ([ADD, UPDATE, read(3, 19, 1)], {"session went back"}),
        ([ADD, UPDATE, DELETE, read(4, 29, 2)], {"session went back"}),
        ([ADD, UPDATE, DELETE, AGAIN, read(5, 39, None)], {"session went back"}),
        # Older than what it read before, by value and by revision.
        (
            [ADD, UPDATE, read(3, 20, 2, session="t"), read(4, 19, 1, session="t")],
            {"session went back"},
        ),
        ([read(3, 20, None, session="t"), read(4, 19, None, session="t")], {"session went back"}),
        ([read(3, 20, None, session="t", epoch=2), read(4, 21, None, session="t")], {"session went back"}),
        ([ADD, unanswered(2, 2), read(4, 11, 2), read(5, 12, 1)], {"session went back"}),
        # It shows less than it says.
        ([ADD, read(2, 10, None, session="t")], {"less than its revision"}),
        ([ADD, UPDATE, DELETE, read(5, 35, 2, session="t")], {"less than its revision"}),
        # Nobody wrote that, or not yet, or what was told not to be done.
        ([ADD, read(2, 10, 7)], {"never written"}),
        ([ADD, UPDATE, DELETE, read(4, 30, 3)], {"never written"}),
        ([ADD, read(0.5, 10, 1, session="t")], {"never written"}),
        ([ADD, unanswered(2, 2, Outcome.REFUSED), read(3, 11, 2)], {"never written"}),
        # Bounds.
        ([ADD, read(2.6, 9, None, session="t", within_s=1)], {"too old"}),
        ([ADD, UPDATE, read(3.6, 19, 1, session="", within_s=1)], {"too old"}),
        ([ADD, UPDATE, DELETE, read(4.6, 29, 2, session="", within_s=1)], {"too old"}),
        ([ADD, read(1.6, 9, None, session="", within_s=0)], {"not strong"}),
        # A promotion that nobody made.
        ([ADD, read(2, 0, None, was_lost=True)], {"lost without loss"}),
        ([ADD, unanswered(2, 2, Outcome.CONFLICT)], {"conflict"}),
        ([ADD, replace(read(2, 10, 1), shown={TEA: 1, OTHER: 1})], {"not asked for"}),
    ],
)
def test_bad_histories_are_named(operations: list[Write | Read], expected: set[str]) -> None:
    assert set(kinds(operations)) == expected


def test_scopes_ask_for_every_memory_of_an_owner() -> None:
    def listed(**shown: int) -> Read:
        found = {("ns", name): counter for name, counter in shown.items()}
        return Read("t", "list", 5, 6, None, found, Position(1, 20), namespace="ns", owner="s")

    writes = [ADD, UPDATE, wrote(1, 2, 15, key=OTHER), wrote(1, 2, 16, key=("elsewhere", "tea"))]
    assert kinds([*writes, listed(tea=2, other=1)]) == []
    assert kinds([*writes, listed(tea=2)]) == ["less than its revision"]
    assert kinds([*writes, listed(tea=1, other=1)]) == ["less than its revision"]


def test_what_is_stored_is_what_was_acknowledged() -> None:
    assert kinds([ADD, UPDATE], versions=stored(ADD)) == ["write lost"]
    # At its revision there is something else.
    assert kinds([ADD], versions=stored(UPDATE)) == ["write lost"]
    assert kinds([ADD], versions=[*stored(ADD), Version(11, TEA, 2, 1)]) == ["done twice"]
    refused = unanswered(2, 2, Outcome.REFUSED)
    assert kinds([ADD, refused], versions=[*stored(ADD), Version(11, TEA, 2, 2)]) == ["refused and done"]
    assert kinds([ADD, unanswered(2, 2)], versions=[*stored(ADD), Version(11, TEA, 2, 2)]) == []


def test_a_conflict_is_right_where_a_write_was_gone_for_a_while() -> None:
    """Epoch 2 left it behind, and epoch 3 goes on from the first again."""
    history = [ADD, unanswered(2, 2, Outcome.CONFLICT)]
    revision = ADD.position.revision if ADD.position else 0
    epochs = [(3, revision + 10)]
    assert kinds(history, epochs=epochs, promoted=[(2, revision), *epochs]) == []
    assert kinds(history, epochs=epochs, promoted=[(2, revision + 1), *epochs]) == ["conflict"]


# The second epoch begins at revision 15: what has a higher one in the first is left behind.
EPOCHS = [(2, 15)]
KEPT, LOST = wrote(1, 1, 14), wrote(2, 2, 15)


def test_what_a_promotion_left_behind_is_set_aside() -> None:
    assert common_revision(EPOCHS, Position(1, 20)) == 14
    assert common_revision(EPOCHS, Position(2, 20)) is None
    # Of an epoch that is not in the log: its first entry may be as late as this.
    assert common_revision([(2, 15), (4, 30)], Position(3, 20)) == 19
    assert [is_lost(EPOCHS, Position(1, revision)) for revision in (14, 15)] == [False, True]
    found = findings([KEPT, LOST], epochs=EPOCHS, set_aside=stored(LOST))
    assert found.violations == []
    assert found.lost_writes == 1
    assert kinds([KEPT, LOST], epochs=EPOCHS) == ["write lost"]
    assert kinds([KEPT, LOST], epochs=EPOCHS, set_aside=stored(LOST), handed_over=frozenset({2})) == [
        "lost by a handover"
    ]
    copied = replace(LOST, is_replicated=True)
    assert kinds([copied], epochs=EPOCHS, set_aside=stored(LOST)) == ["replicated write lost"]
    allowed = frozenset({2})
    assert kinds([copied], epochs=EPOCHS, set_aside=stored(LOST), may_lose_replicated=allowed) == []


def test_a_session_is_told_of_a_loss() -> None:
    def after(*operations: Write | Read) -> list[str]:
        return kinds([KEPT, LOST, *operations], epochs=EPOCHS, set_aside=stored(LOST))

    assert after(read(5, 0, None, was_lost=True)) == []
    assert after(read(5, 0, None, session="t", was_lost=True)) == ["lost without loss"]
    # It had seen nothing of what was lost.
    seen = read(2, 14, 1, session="t")
    assert after(seen, read(5, 16, 1, epoch=2, session="t")) == []
    assert set(after(read(5, 16, 1, epoch=2))) == {"loss not noticed", "session went back"}
    # Nor does a write in the second epoch make up for it.
    again = wrote(3, 3, 16, epoch=2)
    assert after(again, read(5, 17, 3, epoch=2)) == ["loss not noticed"]
    assert after(again, read(5, 17, 3, epoch=2, was_lost=True)) == []


def test_a_loss_may_be_undone() -> None:
    """Epoch 3 began behind revision 16, and epoch 4 from where epoch 2 was then."""
    epochs, promoted = [(2, 15), (4, 20)], [(2, 15), (3, 17), (4, 20)]
    seen = wrote(1, 1, 18, epoch=2)
    told = read(5, 0, None, was_lost=True)
    assert kinds([seen, told], epochs=epochs, promoted=promoted) == []
    assert kinds([seen, told], epochs=epochs) == ["lost without loss"]
    before = wrote(1, 1, 16, epoch=2)
    assert kinds([before, told], epochs=epochs, promoted=promoted) == ["lost without loss"]
    # What epoch 3 answered was of another history.
    other = read(5, 19, None, epoch=3, session="", within_s=1)
    found = findings([seen, other], epochs=epochs, promoted=promoted)
    assert found.violations == []
    assert len(found.superseded_reads) == 1


def test_a_writer_that_was_replaced_may_answer_from_its_past() -> None:
    later = wrote(2, 2, 16, epoch=2)
    found = findings([KEPT, later, read(5, 14, 1, session="", within_s=1)], epochs=EPOCHS)
    assert found.violations == []
    assert len(found.superseded_reads) == 1
    # Within the epoch there is no excuse.
    assert kinds([KEPT, later, read(5, 15, 1, epoch=2, session="", within_s=1)], epochs=EPOCHS) == ["too old"]


def watched(*versions: Version, after: int = 0, until: Position, until_lost: bool = False) -> WatchedPart:
    return WatchedPart("ns", after, list(versions), until, until_lost)


@pytest.mark.parametrize(
    ("part", "is_good"),
    [
        (watched(*stored(ADD, UPDATE, DELETE), until=Position(1, 35)), True),
        (watched(*stored(UPDATE, DELETE), after=10, until=Position(1, 35)), True),
        (watched(*stored(ADD), until=Position(1, 19)), True),
        (watched(*stored(ADD), until=Position(1, 20)), False),
        (watched(*stored(ADD, DELETE), until=Position(1, 35)), False),
        (watched(*stored(ADD, ADD, UPDATE, DELETE), until=Position(1, 35)), False),
        (watched(*stored(UPDATE, ADD, DELETE), until=Position(1, 35)), False),
        (watched(*stored(ADD, UPDATE, DELETE, AGAIN), until=Position(1, 45)), False),
        (watched(*stored(ADD, UPDATE), until=Position(1, 35), until_lost=True), False),
    ],
)
def test_a_watch_gives_each_change_once(part: WatchedPart, is_good: bool) -> None:
    found = kinds([ADD, UPDATE, DELETE], watched=[part])
    assert (found == []) == is_good, found


def test_a_watch_is_told_of_a_loss() -> None:
    seen = stored(KEPT, LOST)

    def after(part: WatchedPart) -> list[str]:
        return kinds([KEPT, LOST], epochs=EPOCHS, set_aside=stored(LOST), watched=[part])

    assert after(watched(*seen, until=Position(1, 15), until_lost=True)) == []
    assert after(watched(*seen, until=Position(2, 15))) == ["watch"]
    assert after(watched(seen[1], until=Position(1, 15), until_lost=True)) == ["watch"]
    assert after(watched(*stored(KEPT), until=Position(1, 14), until_lost=True)) == ["lost without loss"]
