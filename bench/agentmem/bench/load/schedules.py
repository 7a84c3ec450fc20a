"""When requests are due and how many workers there are: const, step and line, as ghz defines them."""

from collections.abc import Iterator
from dataclasses import dataclass

SECOND_NS = 10**9
KINDS = ("const", "step", "line")


@dataclass(frozen=True)
class Ramp:
    """A level over time: requests per second, or workers.

    A line is a step each second. The level changes until it comes to `end`, or for `max_duration_ns`,
    whichever is set (0: not); after `max_duration_ns` it is `end`, or where it has come to.
    """

    kind: str
    start: int
    step: int = 0
    end: int = 0
    step_duration_ns: int = 0
    max_duration_ns: int = 0

    def stages(self) -> Iterator[tuple[int, int]]:
        """The time of each change in ns and the level from then on. Without end when the ramp has none."""
        level, time_ns = self.start, 0
        yield 0, level
        if self.kind == "const":
            return
        every_ns = SECOND_NS if self.kind == "line" else self.step_duration_ns
        while level > 0 and level != self.end:
            time_ns += every_ns
            over = bool(self.max_duration_ns) and time_ns >= self.max_duration_ns
            if over and (self.end or time_ns > self.max_duration_ns):
                if self.end:
                    yield self.max_duration_ns, self.end
                return
            level = max(level + self.step, 0)
            if self.end and (level > self.end if self.step > 0 else level < self.end):
                level = self.end
            yield time_ns, level
            if over:
                return

    def highest(self) -> int | None:
        """The highest level it comes to; None when it rises without end."""
        if self.kind != "const" and self.step > 0 and not self.end and not self.max_duration_ns:
            return None
        return max(level for _, level in self.stages())


def due_times_ns(ramp: Ramp, first: int, stride: int) -> Iterator[int]:
    """When the requests first, first + stride ... are due, in ns from the start of the run.

    In whole numbers, so that nothing drifts however long the run is, and so that processes that share a
    schedule by stride agree. Ends when the ramp comes down to 0 requests per second.
    """
    stages = ramp.stages()
    start_ns, rate = next(stages)
    number = first
    # What the stages before this one were worth, in requests / 10**9.
    credit = 0
    while rate > 0:
        following = next(stages, None)
        worth = None if following is None else credit + rate * (following[0] - start_ns)
        while worth is None or number * SECOND_NS < worth:
            yield start_ns - (credit - number * SECOND_NS) // rate
            number += stride
        if following is None:
            return
        credit = worth
        start_ns, rate = following
