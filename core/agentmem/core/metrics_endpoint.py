"""/metrics for Prometheus, in a thread of its own: a scrape does not hold up the event loop."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from agentmem.core.config import split_address
from agentmem.core.errors import AgentMemError
from agentmem.core.node_metrics import NodeMetrics

PATH = "/metrics"
# One request at a time: who is slower than this to send or take one gives way to the next.
CLIENT_TIMEOUT_S = 5.0
MAX_WAITING_CONNECTIONS = 16
POLL_INTERVAL_S = 0.1

_logger = logging.getLogger(__name__)


class MetricsListenError(Exception):
    """The address for the metrics cannot be listened on."""


class MetricsEndpoint:
    """Serves from the moment it is made until ``close``.

    Attributes:
        address: host:port, as listened on.
    """

    def __init__(self, listen: str, metrics: NodeMetrics) -> None:
        """Binds ``host:port``; port 0 takes a free one. Raises MetricsListenError."""
        host, port = split_address(listen, "--metrics-listen")
        try:
            self._server = _Server((host, port), metrics)
        except OSError as error:
            raise MetricsListenError(f"cannot listen on {listen} for --metrics-listen: {error}") from error
        self.address = f"{listen.rpartition(':')[0]}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_INTERVAL_S,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends it, after the scrape that is being answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(HTTPServer):
    request_queue_size = MAX_WAITING_CONNECTIONS

    def __init__(self, address: tuple[str, int], metrics: NodeMetrics) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self._metrics = metrics
        self._text: object = None

    def handle_error(self, request: object, client_address: object) -> None:
        _logger.error("a scrape failed", exc_info=sys.exception())

    def scrape(self, accept: str) -> tuple[bytes, str]:
        # Not before somebody scrapes: see there.
        from agentmem.core.telemetry import PrometheusText

        if not isinstance(self._text, PrometheusText):
            self._text = PrometheusText(self._metrics)
        return self._text.scrape(accept)


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, f"the metrics are at {PATH}")
            return
        try:
            body, content_type = self.server.scrape(self.headers.get("Accept", ""))
        except AgentMemError as error:
            # Such as a store that is damaged, or is being closed.
            self.send_error(503, error.reason)
            return
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line each."""
