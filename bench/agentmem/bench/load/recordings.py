"""What a generator process notes of its calls."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agentmem.bench.load.histograms import Histogram

# As many calls as ghz keeps of a whole run; those after them are counted and go into histograms.
MAX_DETAILED_CALLS = 1_000_000
MAX_ERROR_TEXTS = 1_000
OTHER_ERRORS = "(other errors)"

# grpc's names of codes as Go prints them, which ghz reports. 1 is spelled as Go does.
GO_STATUSES = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}
STATUSES = tuple(GO_STATUSES.values())
STATUS_NUMBERS = {name: number for number, name in enumerate(GO_STATUSES)}
OK = STATUS_NUMBERS["OK"]
# The delay of a call that had no time at which it was due.
NOT_DUE = -1


@dataclass
class Latencies:
    """Durations in ns: exact sum, least and most, and a histogram."""

    sum_ns: int = 0
    fastest_ns: int | None = None
    slowest_ns: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def record(self, value_ns: int) -> None:
        self.sum_ns += value_ns
        if self.fastest_ns is None or value_ns < self.fastest_ns:
            self.fastest_ns = value_ns
        if value_ns > self.slowest_ns:
            self.slowest_ns = value_ns
        self.histogram.record(value_ns)

    def record_ordered(self, values_ns: npt.NDArray[np.int64]) -> None:
        """Records values that are in order, as the first ones."""
        if len(values_ns):
            self.sum_ns = int(values_ns.sum())
            self.fastest_ns, self.slowest_ns = int(values_ns[0]), int(values_ns[-1])
            self.histogram.record_all(values_ns)

    def add(self, other: "Latencies") -> None:
        if other.fastest_ns is None:
            return
        self.sum_ns += other.sum_ns
        self.fastest_ns = (
            other.fastest_ns if self.fastest_ns is None else min(self.fastest_ns, other.fastest_ns)
        )
        self.slowest_ns = max(self.slowest_ns, other.slowest_ns)
        self.histogram.add(other.histogram)


@dataclass
class Totals:
    """Calls without their details."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    # Of every call, whatever came of it.
    sum_ns: int = 0
    # Of the calls that count for percentiles: those without error, or all with count-errors.
    # From when the call was sent to its end, as ghz measures it,
    service: Latencies = field(default_factory=Latencies)
    # and from when it was due to its end: a call that waited for its turn behind a stalled one has waited.
    scheduled: Latencies = field(default_factory=Latencies)
    # From when a call was due until it was sent.
    delay: Latencies = field(default_factory=Latencies)

    @property
    def count(self) -> int:
        return self.statuses.total()

    def record(self, status: int, error: str, service_ns: int, delay_ns: int, count_errors: bool) -> None:
        self.statuses[status] += 1
        self.sum_ns += service_ns
        if error:
            note_error(self.errors, error)
        if status != OK and not count_errors:
            return
        self.service.record(service_ns)
        if delay_ns != NOT_DUE:
            self.delay.record(delay_ns)
            self.scheduled.record(delay_ns + service_ns)

    def add(self, other: "Totals") -> None:
        self.statuses += other.statuses
        for error, count in other.errors.items():
            note_error(self.errors, error, count)
        self.sum_ns += other.sum_ns
        self.service.add(other.service)
        self.scheduled.add(other.scheduled)
        self.delay.add(other.delay)


def note_error(errors: Counter[str], error: str, count: int = 1) -> None:
    """Counts a text; when there are too many different ones, among the others."""
    errors[error if error in errors or len(errors) < MAX_ERROR_TEXTS else OTHER_ERRORS] += count


@dataclass
class EndpointCounts:
    """The calls of one host."""

    calls: int = 0
    errors: int = 0
    sum_ns: int = 0


class Recording:
    """The calls of one process; the first of them with their details, those after them as totals."""

    def __init__(
        self, endpoints: int, count_errors: bool, max_detailed_calls: int = MAX_DETAILED_CALLS
    ) -> None:
        self._count_errors = count_errors
        self._max_detailed_calls = max_detailed_calls
        # In ns from the start of the run; arrays, as a list of objects would cost ten times as much.
        self.sent_ns = array("q")
        self.service_ns = array("q")
        self.delay_ns = array("q")
        self.statuses = array("B")
        self.error_numbers = array("H")
        self.error_texts: list[str] = [""]
        self._numbers_of_errors = {"": 0}
        self.more = Totals()
        self.endpoints = [EndpointCounts() for _ in range(endpoints)]
        # How late calls were sent for which a worker was free: what the generator itself adds.
        self.lag = Latencies()
        # Calls that were due before the end of the run and were not sent: all workers were waiting.
        self.unsent = 0
        self.end_reason = "normal"
        self.elapsed_ns = 0
        self.cpu_ns = 0
        self.warmup_calls = 0
        self.warmup_ns = 0

    def record(
        self, endpoint: int, status: int, error: str, sent_ns: int, service_ns: int, delay_ns: int
    ) -> None:
        counts = self.endpoints[endpoint]
        counts.calls += 1
        counts.sum_ns += service_ns
        if status != OK:
            counts.errors += 1
        if len(self.sent_ns) >= self._max_detailed_calls:
            self.more.record(status, error, service_ns, delay_ns, self._count_errors)
            return
        self.sent_ns.append(sent_ns)
        self.service_ns.append(service_ns)
        self.delay_ns.append(delay_ns)
        self.statuses.append(status)
        self.error_numbers.append(self._error_number(error))

    def _error_number(self, error: str) -> int:
        number = self._numbers_of_errors.get(error)
        if number is None:
            if len(self.error_texts) > MAX_ERROR_TEXTS:
                error = OTHER_ERRORS
            number = self._numbers_of_errors.setdefault(error, len(self.error_texts))
            if number == len(self.error_texts):
                self.error_texts.append(error)
        return number
