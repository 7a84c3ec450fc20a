"""What a recorded history of writes and reads must not show. Pure functions; see ``History``.

Each memory is written by one session only, with a rising counter in its content, so an answer tells by value
how much of the past it shows. A write whose outcome is not known is the last one to its memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter

from agentmem.client import Position

# Namespace and id.
Key = tuple[str, str]


class Outcome(Enum):
    """What became of a write."""

    ACKNOWLEDGED = "acknowledged"
    IN_DOUBT = "in doubt"
    REFUSED = "refused"  # surely not done, says the client
    CONFLICT = "conflict"  # refused, as the memory is not as its only writer left it


@dataclass(slots=True)
class Write:
    """One write to one memory. Times are of one monotonic clock, in seconds.

    Attributes:
        session: empty when it was none.
        owner: the ``user_id`` of the memory.
        counter: in the content; rises with each write to the memory, deletions too.
        position: of the commit; None while it is not known.
        is_replicated: whether it was acknowledged as being on the disk of a replica, too.
    """

    session: str
    key: Key
    owner: str
    counter: int
    is_deletion: bool
    begun_s: float
    ended_s: float = float("inf")
    outcome: Outcome = Outcome.IN_DOUBT
    position: Position | None = None
    is_replicated: bool = False


@dataclass(slots=True)
class Read:
    """One read that was answered.

    Attributes:
        session: empty when it was none.
        kind: for messages, such as "get".
        asked: the memories asked for, by their ids or their words; None for all of an owner.
        namespace, owner: whose memories were asked for, when ``asked`` is None.
        shown: the counter of each memory in the answer.
        staleness_s: what it asked for by ``max_staleness``; 0 for ``strong``; None for no such bound.
        was_lost: instead of an answer there was RevisionLost.
    """

    session: str
    kind: str
    begun_s: float
    ended_s: float
    asked: tuple[Key, ...] | None
    shown: Mapping[Key, int]
    position: Position
    namespace: str = ""
    owner: str = ""
    staleness_s: float | None = None
    was_lost: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it is stored, set aside or watched. A deletion has no counter."""

    revision: int
    key: Key
    version: int
    counter: int | None


@dataclass(slots=True)
class WatchedPart:
    """What a watch of a namespace gave between its start, or an error that it could not go on after, and the
    next such error.

    Attributes:
        after_revision: behind which it began.
        until: how far it came: everything up to there was to be given.
        until_lost: whether it ended as a promotion had left its position behind.
    """

    namespace: str
    after_revision: int
    changes: list[Version] = field(default_factory=list)
    until: Position = Position()
    until_lost: bool = False


@dataclass(slots=True)
class History:
    """All that was seen, and what is there at the end.

    Attributes:
        operations: of all clients. Those of a session came one after the other.
        epochs: each epoch that began with a promotion, in the log that is there at the end, with the revision
            of its first entry; ascending.
        promoted: each epoch that began, also those left behind, with the revision of its first entry.
        stored: every version in the store at the end.
        set_aside: what nodes set aside, of all promotions.
        handed_over: epochs whose promotion said that it left nothing behind.
        may_lose_replicated: epochs whose promotion was forced, or could not ask all replicas what they have.
    """

    operations: list[Write | Read] = field(default_factory=list)
    watched: list[WatchedPart] = field(default_factory=list)
    epochs: Sequence[tuple[int, int]] = ()
    promoted: Sequence[tuple[int, int]] = ()
    stored: Sequence[Version] = ()
    set_aside: Sequence[Version] = ()
    handed_over: frozenset[int] = frozenset()
    may_lose_replicated: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Violation:
    """What contradicts a promise. ``kind`` is short, for counting."""

    kind: str
    text: str


@dataclass(slots=True)
class Findings:
    """Violations, and what is allowed and yet worth counting.

    Attributes:
        superseded_reads: reads that a writer which had been replaced, and did not know yet, or a replica of
            it, answered from its past: the limit of promotions without a quorum.
        lost_writes: acknowledged, left behind by a promotion, and found in what was set aside.
        lost_replicated: those of them that a replica had.
    """

    violations: list[Violation] = field(default_factory=list)
    superseded_reads: list[str] = field(default_factory=list)
    lost_writes: int = 0
    lost_replicated: int = 0

    def add(self, kind: str, text: str) -> None:
        self.violations.append(Violation(kind, text))


def check(history: History) -> Findings:
    """Everything that is wrong with a history."""
    findings = Findings()
    _Reads(history, findings).check()
    _check_writes(history, findings)
    for part in history.watched:
        _check_watched(part, history, findings)
    return findings


def common_revision(epochs: Iterable[tuple[int, int]], position: Position) -> int | None:
    """The last revision of a log that ends at the position that can be in the log that goes on.

    None when all of it is. An epoch that is not in ``epochs``, though a later one is, was left behind whole.
    """
    starts = {1: 0, **dict(epochs)}
    first = next((first for later, first in starts.items() if later > position.epoch), None)
    if first is None:
        return None
    last = position.revision if position.epoch in starts else position.revision - 1
    common = min(first - 1, last)
    return common if common < position.revision else None


def is_lost(epochs: Iterable[tuple[int, int]], position: Position) -> bool:
    """Whether a promotion left a position behind."""
    return common_revision(epochs, position) is not None


def _was_lost(history: History, position: Position) -> bool:
    """Whether a position is left behind, or was, in an epoch that a later promotion left behind in turn."""
    return is_lost(history.epochs, position) or any(
        epoch > position.epoch and first_revision <= position.revision
        for epoch, first_revision in _left_behind(history)
    )


def _left_behind(history: History) -> list[tuple[int, int]]:
    """The promotions whose epochs are not in the log that goes on."""
    kept = {epoch for epoch, _ in history.epochs}
    return [each for each in history.promoted if each[0] not in kept]


class _Memory:
    """The writes to one memory, in the order of their counters."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.by_counter: dict[int, Write] = {}
        # Of the acknowledged writes that are in the log that goes on: times, revisions, counters; all ascend.
        self.ended_s: list[float] = []
        self.revisions: list[int] = []
        self.kept: list[Write] = []

    def add(self, write: Write, epochs: Sequence[tuple[int, int]]) -> None:
        self.writes.append(write)
        self.by_counter[write.counter] = write
        if write.position is not None and not is_lost(epochs, write.position):
            self.ended_s.append(write.ended_s)
            self.revisions.append(write.position.revision)
            self.kept.append(write)

    def acknowledged_before(self, time_s: float) -> Write | None:
        """The last of those writes that was acknowledged before a time."""
        place = bisect_left(self.ended_s, time_s)
        return self.kept[place - 1] if place else None

    def up_to(self, revision: int) -> Write | None:
        """The last of those writes up to a revision."""
        place = bisect_left(self.revisions, revision + 1)
        return self.kept[place - 1] if place else None

    def absent_at(self, floor: int, ended_s: float) -> int | None:
        """The lowest counter, not below a floor, at which the memory was not there; None: there is none."""
        if not floor:
            return 0
        return next(
            (
                write.counter
                for write in self.writes
                if write.counter >= floor and write.is_deletion and _may_show(write, ended_s)
            ),
            None,
        )


def _may_show(write: Write, ended_s: float) -> bool:
    """Whether an answer that came at a time may show a write.

    One that met a conflict may have been done before, in an epoch that was left behind.
    """
    return write.begun_s < ended_s and write.outcome is not Outcome.REFUSED


@dataclass(slots=True)
class _Session:
    """What a session has written and seen: the counter by memory, the highest revision by epoch."""

    counters: dict[Key, int] = field(default_factory=dict)
    revisions: dict[int, int] = field(default_factory=dict)

    def saw(self, position: Position) -> None:
        self.revisions[position.epoch] = max(self.revisions.get(position.epoch, 0), position.revision)


class _Reads:
    """The reads of a history, against its writes."""

    def __init__(self, history: History, findings: Findings) -> None:
        self._history = history
        self._epochs = history.epochs
        self._operations = sorted(history.operations, key=attrgetter("begun_s"))
        self._findings = findings
        self._memories: dict[Key, _Memory] = defaultdict(_Memory)
        self._of_owner: dict[tuple[str, str], list[Key]] = defaultdict(list)
        self._sessions: dict[str, _Session] = defaultdict(_Session)
        for write in self._operations:
            if isinstance(write, Write):
                if write.key not in self._memories:
                    self._of_owner[write.key[0], write.owner].append(write.key)
                self._memories[write.key].add(write, self._epochs)

    def check(self) -> None:
        for operation in self._operations:
            session = self._sessions[operation.session] if operation.session else None
            if isinstance(operation, Read):
                self._check_read(operation, session)
            elif session is not None and operation.outcome is Outcome.ACKNOWLEDGED:
                session.counters[operation.key] = operation.counter
                if operation.position is not None:
                    session.saw(operation.position)

    def _check_read(self, read: Read, session: _Session | None) -> None:
        if read.was_lost:
            seen = [Position(*each) for each in session.revisions.items()] if session else []
            if not any(_was_lost(self._history, position) for position in seen):
                self._findings.add("lost without loss", f"{_told(read)}: RevisionLost, having seen {seen}")
            return
        if session is not None:
            self._check_position(read, session)
        for key in read.shown:
            if read.asked is not None and key not in read.asked:
                self._findings.add("not asked for", f"{_told(read)}: {key}")
        asked = self._of_owner[read.namespace, read.owner] if read.asked is None else read.asked
        for key in asked:
            self._check_key(read, key, session)
        if session is not None:
            session.saw(read.position)

    def _check_position(self, read: Read, session: _Session) -> None:
        for epoch, revision in session.revisions.items():
            if epoch > read.position.epoch or revision > read.position.revision:
                self._findings.add(
                    "session went back", f"{_told(read)}, having seen revision {revision} of epoch {epoch}"
                )
            elif is_lost(
                (each for each in self._epochs if each[0] <= read.position.epoch), Position(epoch, revision)
            ):
                self._findings.add(
                    "loss not noticed", f"{_told(read)}, having seen revision {revision} of epoch {epoch}"
                )

    def _check_key(self, read: Read, key: Key, session: _Session | None) -> None:
        memory = self._memories[key]
        shown = read.shown.get(key)
        if shown is not None:
            write = memory.by_counter.get(shown)
            if write is None or write.is_deletion or not _may_show(write, read.ended_s):
                self._findings.add("never written", f"{_told(read)}: {key} at {shown}: {write}")
                return
        own = session.counters.get(key, 0) if session is not None else 0
        if not self._reaches(read, memory, shown, own):
            self._findings.add(
                "session went back", f"{_told(read)}: {key} is {_at(shown)}, the session had seen {own}"
            )
        self._check_revision(read, key, memory, shown)
        if read.staleness_s is not None:
            self._check_staleness(read, read.staleness_s, key, memory, shown)
        if session is not None:
            counter = memory.absent_at(own, read.ended_s) if shown is None else shown
            session.counters[key] = max(own, counter or 0)

    def _reaches(self, read: Read, memory: _Memory, shown: int | None, floor: int) -> bool:
        if shown is not None:
            return shown >= floor
        return memory.absent_at(floor, read.ended_s) is not None

    def _check_revision(self, read: Read, key: Key, memory: _Memory, shown: int | None) -> None:
        """The answer shows what was written up to the revision that it names."""
        if is_lost(self._epochs, read.position):
            return
        needed = memory.up_to(read.position.revision)
        if needed is not None and not self._reaches(read, memory, shown, needed.counter):
            self._findings.add(
                "less than its revision", f"{_told(read)}: {key} is {_at(shown)}, not {_write(needed)}"
            )

    def _check_staleness(
        self, read: Read, staleness_s: float, key: Key, memory: _Memory, shown: int | None
    ) -> None:
        needed = memory.acknowledged_before(read.begun_s - staleness_s)
        if needed is None or self._reaches(read, memory, shown, needed.counter):
            return
        told = (
            f"{_told(read)}: {key} is {_at(shown)}, not {_write(needed)}, which was acknowledged "
            f"{read.begun_s - needed.ended_s:.3f} s before the read"
        )
        is_older = needed.position is not None and read.position.epoch < needed.position.epoch
        if is_older or is_lost(self._epochs, read.position):
            self._findings.superseded_reads.append(told)
        else:
            self._findings.add("too old" if staleness_s else "not strong", told)


def _check_writes(history: History, findings: Findings) -> None:
    """What was acknowledged is there or set aside, what was refused is not, and nothing is there twice."""
    counters: dict[Key, dict[int, int | None]] = defaultdict(dict)
    for version in history.stored:
        if version.counter is not None and version.counter in counters[version.key].values():
            findings.add("done twice", f"{version.key} has {version.counter} in several versions")
        counters[version.key][version.revision] = version.counter
    kept_aside = {(each.revision, each.key, each.counter) for each in history.set_aside}
    has_loss: set[Key] = set()
    for write in _writes(history):
        if write.outcome is not Outcome.ACKNOWLEDGED or write.position is None:
            continue
        counter = None if write.is_deletion else write.counter
        if _was_lost(history, write.position):
            has_loss.add(write.key)
        if not is_lost(history.epochs, write.position):
            if counters[write.key].get(write.position.revision, -1) != counter:
                findings.add("write lost", f"{_write(write)} is not in the store")
            continue
        findings.lost_writes += 1
        if (write.position.revision, write.key, counter) not in kept_aside:
            findings.add("write lost", f"{_write(write)} was left behind by a promotion and not set aside")
        successor = next(epoch for epoch, _ in history.epochs if epoch > write.position.epoch)
        if successor in history.handed_over:
            findings.add("lost by a handover", f"{_write(write)}, by the promotion to {successor}")
        if write.is_replicated:
            findings.lost_replicated += 1
            if successor not in history.may_lose_replicated:
                findings.add("replicated write lost", f"{_write(write)}, by the promotion to {successor}")
    for write in _writes(history):
        if write.outcome is Outcome.REFUSED and write.counter in counters[write.key].values():
            findings.add("refused and done", _write(write))
        if write.outcome is Outcome.CONFLICT and write.key not in has_loss:
            findings.add("conflict", f"{_write(write)}: the memory is not as its only writer left it")


def _writes(history: History) -> Iterator[Write]:
    return (each for each in history.operations if isinstance(each, Write))


def _check_watched(part: WatchedPart, history: History, findings: Findings) -> None:
    """The changes are those of the log that goes on, in its order, and what a promotion left behind."""
    if part.until_lost and not _was_lost(history, part.until):
        findings.add("lost without loss", f"a watch of {part.namespace} lost {part.until}")
    # What comes after that was left behind with the position.
    common = common_revision(history.epochs, part.until) if part.until_lost else None
    limit = part.until.revision if common is None else max(common, part.after_revision)
    if part.until_lost:
        # A watch of an epoch that was left behind whole may have parted from the log earlier.
        began = [first for epoch, first in _left_behind(history) if epoch <= part.until.epoch]
        limit = max(min([limit, *(first - 1 for first in began)]), part.after_revision)
    expected = [
        version
        for version in history.stored
        if version.key[0] == part.namespace and part.after_revision < version.revision <= limit
    ]
    found = [version for version in part.changes if version.revision <= limit]
    if found != sorted(expected, key=attrgetter("revision")):
        missing, extra = set(expected) - set(found), set(found) - set(expected)
        findings.add(
            "watch",
            f"{part.namespace} behind {part.after_revision} up to {limit}: {len(found)} changes for "
            f"{len(expected)}; missing {_first(missing)}, not in the store {_first(extra)}",
        )


def _first(versions: Iterable[Version]) -> str:
    return str(sorted(versions, key=attrgetter("revision"))[:3])


def _told(read: Read) -> str:
    bound = "" if read.staleness_s is None else f" within {read.staleness_s:g} s"
    return (
        f"{read.kind}{bound} of {read.session or 'no session'} at {read.begun_s:.3f} s, answered at "
        f"{read.ended_s:.3f} s with revision {read.position.revision} of epoch {read.position.epoch}"
    )


def _write(write: Write) -> str:
    where = write.position
    at = f"revision {where.revision} of epoch {where.epoch}" if where else "no known revision"
    return f"{write.key} {_at(None if write.is_deletion else write.counter)} ({write.counter}) at {at}"


def _at(counter: int | None) -> str:
    return "not there" if counter is None else f"at {counter}"
