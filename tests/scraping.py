"""What a node says at /metrics, read by Prometheus's own parser."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from cluster import Node
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 30.0
# Behind the name of a histogram.
SAMPLE_SUFFIXES = ("_bucket", "_sum", "_count", "_total")


@dataclass(frozen=True)
class Scrape:
    """The samples of a scrape by their name, and by their labels."""

    kinds: dict[str, str]
    samples: dict[str, dict[frozenset[tuple[str, str]], float]]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have at least these labels; 0 without one."""
        wanted = set(labels.items())
        return sum(value for found, value in self.samples.get(name, {}).items() if wanted <= found)

    def labels(self, name: str) -> set[str]:
        """The names of the labels of all samples of the name."""
        return {label for found in self.samples[name] for label, _ in found}


def metrics_url(node: Node) -> str:
    """Where the metrics of a node are, as it says itself."""
    return f"http://{node.announcement['metrics_address']}/metrics"


def scrape(node: Node) -> Scrape:
    """The metrics of a node as they are now."""
    with urllib.request.urlopen(metrics_url(node), timeout=TIMEOUT_S) as response:
        text = response.read().decode()
    kinds: dict[str, str] = {}
    samples: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        kinds[family.name + ("_total" if family.type == "counter" else "")] = family.type
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(kinds, samples)
