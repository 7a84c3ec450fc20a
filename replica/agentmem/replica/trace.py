"""How a search was done: its steps, with what was chosen and how long each took."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from agentmem.replica.planner import Estimate


@dataclass(slots=True)
class Step:
    """One step of a search.

    Attributes:
        plan: what was chosen, in words.
        estimated: what that was thought to cost; None where nothing was.
        memories: how many came out of it.
        began_s, ended_s: on the performance counter.
    """

    name: str
    plan: str = ""
    memories: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0
    estimated: Estimate | None = None

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *failure: object) -> None:
        self.ended_s = time.perf_counter()

    @property
    def described(self) -> str:
        """The plan and the estimate. Put into words when somebody wants to read them, which few do."""
        return self.plan if self.estimated is None else f"{self.plan}; {self.estimated}"

    @property
    def milliseconds(self) -> float:
        return (self.ended_s - self.began_s) * 1000


@dataclass(slots=True)
class Trace:
    """The steps of a search in the order in which they were begun.

    Attributes:
        live, matching: memories of the namespace, and those that match the filter.
        mode: that was served; "" for a namespace that is not there.
        tokens: that were looked for.
    """

    steps: list[Step] = field(default_factory=list)
    live: int = 0
    matching: int = 0
    mode: str = ""
    tokens: list[str] = field(default_factory=list)

    def step(self, name: str) -> Step:
        """Begins a step, which ends with its ``with`` block; what it did is put into it by the caller."""
        step = Step(name, began_s=time.perf_counter())
        self.steps.append(step)
        return step
