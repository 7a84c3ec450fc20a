"""Which namespace is asked for a sealing job, and when."""

from __future__ import annotations

import time
from collections.abc import Mapping

from agentmem.replica.namespace_index import NamespaceIndex
from agentmem.replica.sealing import Sealer
from agentmem.replica.sealing_job import Sealed


class SealingSchedule:
    """One segment is written at a time. For the indexer's thread alone."""

    def __init__(self, sealer: Sealer, seal_rows: int) -> None:
        self._sealer = sealer
        self._seal_rows = seal_rows
        self._sealable: set[str] = set()  # changed since they were last asked for a sealing job
        self._settling_s: dict[str, float] = {}  # when they are to be asked again, as nothing is written

    def note(self, *names: str) -> None:
        """Namespaces have changed."""
        self._sealable.update(names)

    def wait_s(self) -> float | None:
        """How long until ``advance`` may have something to do, if nothing changes; None for never."""
        if self._sealer.is_busy:
            return None  # it notifies the indexer
        waits_s = [self._sealer.wait_s()] if self._sealable else []
        if self._settling_s:
            waits_s.append(max(0.0, min(self._settling_s.values()) - time.monotonic()))
        return min(waits_s, default=None)

    def advance(self, namespaces: Mapping[str, NamespaceIndex]) -> list[str]:
        """Takes up a finished segment and begins the next when one is due; returns who has changed by it."""
        sealed = self._sealer.collect()
        changed = [] if sealed is None else self._take_up(sealed, namespaces[sealed.job.namespace])
        if self._sealer.is_busy or self._sealer.wait_s() > 0:
            return changed
        now_s = time.monotonic()
        self._sealable.update(name for name, at_s in self._settling_s.items() if at_s <= now_s)
        while self._sealable:
            name = self._sealable.pop()
            self._settling_s.pop(name, None)
            job = namespaces[name].sealing_job(self._seal_rows)
            if job is not None:
                self._sealable.add(name)  # a job that fails is begun again
                self._sealer.start(job)
                break
            settled_at_s = namespaces[name].settled_at_s(self._seal_rows)
            if settled_at_s is not None:
                self._settling_s[name] = settled_at_s
        return changed

    def _take_up(self, sealed: Sealed, namespace: NamespaceIndex) -> list[str]:
        self._sealable.add(namespace.name)
        if sealed.job.space != namespace.state.space:
            # Of embeddings that were replaced meanwhile.
            if sealed.segment is not None:
                self._sealer.remove([sealed.segment.name])
            return []
        namespace.take_up(sealed)
        self._sealer.remove(sealed.replaced)
        return [namespace.name]
