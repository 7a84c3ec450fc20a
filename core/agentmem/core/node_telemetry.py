"""How what a node measures leaves it: /metrics, and OTLP where there is an endpoint for it."""

from __future__ import annotations

import logging
import threading
import time

from agentmem.core.metrics_endpoint import MetricsEndpoint
from agentmem.core.node_metrics import NodeMetrics
from agentmem.core.settings import NodeSettings
from agentmem.core.spans import Sampling

MAX_CLOSE_S = 3.0

_logger = logging.getLogger(__name__)


class NodeTelemetry:
    """Open from the moment it is made until ``close``.

    Attributes:
        metrics_address: of /metrics, host:port; empty without one.
    """

    def __init__(self, settings: NodeSettings, metrics: NodeMetrics, sampling: Sampling) -> None:
        """``sampling`` gets where traces go, if they go anywhere. Raises MetricsListenError."""
        self._sampling = sampling
        self._endpoint = (
            MetricsEndpoint(settings.metrics_listen, metrics) if settings.metrics_listen else None
        )
        self.metrics_address = self._endpoint.address if self._endpoint else ""
        self._otlp = None
        if settings.otlp_endpoint:
            # Not without need: see there.
            from agentmem.core.telemetry import OtlpMetrics, OtlpSpans

            self._otlp = OtlpMetrics(metrics, settings.otlp_endpoint)
            sampling.sink = OtlpSpans(metrics.node, metrics.node_id, settings.otlp_endpoint)
            sampling.ratio = settings.trace_sample_ratio
        if self.metrics_address:
            _logger.info("metrics are at http://%s/metrics", self.metrics_address)

    def close(self) -> None:
        """Ends both. What is measured is read for the last time, so it has to be there still.

        A collector gets MAX_CLOSE_S for what is left; one that is silent would hold up the end of the node.
        """
        if self._endpoint is not None:
            self._endpoint.close()
        ends = [each.close for each in (self._otlp, self._sampling.sink) if each is not None]
        threads = [threading.Thread(target=end, name="otlp-end", daemon=True) for end in ends]
        give_up_s = time.monotonic() + MAX_CLOSE_S
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, give_up_s - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            _logger.warning("the collector did not take what was left within %.0f s", MAX_CLOSE_S)
