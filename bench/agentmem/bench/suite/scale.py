"""How large a run of the suite is."""

from __future__ import annotations

from dataclasses import dataclass

MIN_ROUNDS = 3
MIN_MEMORIES = 100


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Sizes, checked when made. Raises ValueError.

    Attributes:
        rounds: runs of each figure, at least 3.
        seconds: of each run; of the empty calls before it, half as long.
        memories: that are read and changed one by one.
        sizes: memories among which is searched, ascending.
        questions: with which accuracy is measured.
        owned: memories of many owners, each of whom searches his own; ascending.
        users, operations: of the mixed load; operations are of each user.
        concurrency: callers of the mixed load, for its curve.
        missed: memories that a replica has missed when it catches up.
        replicas: numbers of replicas that are compared.
        freshness: writes of which each index is waited for.
        soak_s, soak_interval_s: of the long run, and between its samples.
    """

    rounds: int = 3
    seconds: float = 1.5
    memories: int = 1_000
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000)
    questions: int = 100
    owned: tuple[int, ...] = (10_000, 100_000)
    users: int = 100
    operations: int = 1_000
    concurrency: tuple[int, ...] = (1, 4, 16, 64, 256)
    missed: int = 20_000
    replicas: tuple[int, ...] = (1, 2, 4)
    freshness: int = 30
    soak_s: float = 60.0
    soak_interval_s: float = 2.0

    def __post_init__(self) -> None:
        if self.rounds < MIN_ROUNDS:
            raise ValueError(f"rounds must be at least {MIN_ROUNDS}: one run says nothing of its noise")
        for name in ("sizes", "owned", "concurrency", "replicas"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)) or values[0] < 1:
                raise ValueError(f"{name} must be ascending numbers above 0, not {values}")
        for name in (
            "seconds",
            "memories",
            "questions",
            "users",
            "operations",
            "missed",
            "freshness",
            "soak_s",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.memories < MIN_MEMORIES:
            raise ValueError(f"memories must be at least {MIN_MEMORIES}, which is a batch")
        if not 0 < self.soak_interval_s <= self.soak_s / 4:
            raise ValueError("soak_interval_s must be above 0, and fit four times into soak_s")


DEFAULT = Scale()
# A minute, to see whether everything works; the figures of so little say nothing.
TINY = Scale(
    seconds=0.1,
    memories=100,
    sizes=(60, 150),
    questions=5,
    owned=(100, 200),
    users=5,
    operations=10,
    concurrency=(1, 4),
    missed=200,
    replicas=(1, 2),
    freshness=3,
    soak_s=1.2,
    soak_interval_s=0.3,
)
