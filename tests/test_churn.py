"""Updates and deletions under load, few of them; bench/churn.py does it in numbers."""

from __future__ import annotations

from churn_load import KINDS, churn

from agentmem.client import Client

READS = 200


def test_no_read_returns_what_was_dead_before_it_began(client: Client, namespace: str) -> None:
    ledger = churn(client, namespace, owners=2, readers=2, reads=READS)
    assert ledger.violations == []
    kinds = {kind.partition(" ")[2] for kind in ledger.reads if kind.startswith("strong")}
    assert kinds == set(KINDS)
    assert min(ledger.writes[kind] for kind in ("add", "update", "delete")) > 0
