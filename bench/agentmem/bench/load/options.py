"""The options of a run."""

from dataclasses import dataclass, field

from agentmem.bench.load.schedules import Ramp

DEFAULT_TOTAL = 200
DEFAULT_CONCURRENCY = 50


@dataclass(frozen=True)
class Options:
    """Checked options. Times are in ns; 0 is "no limit"."""

    hosts: tuple[str, ...]
    call: str
    proto: str = ""
    protoset: str = ""
    import_paths: tuple[str, ...] = ()
    cacert: str = ""
    cert: str = ""
    key: str = ""
    cname: str = ""
    insecure: bool = False
    authority: str = ""
    enable_compression: bool = False
    # None: as fast as the workers get answers.
    load: Ramp | None = None
    asynchronous: bool = False
    concurrency: Ramp = field(default_factory=lambda: Ramp("const", DEFAULT_CONCURRENCY))
    # None: as many as the duration allows.
    total: int | None = DEFAULT_TOTAL
    duration_ns: int = 0
    max_duration_ns: int = 0
    duration_stop: str = "close"
    timeout_ns: int = 20 * 10**9
    connect_timeout_ns: int = 10 * 10**9
    keepalive_ns: int = 0
    stream_interval_ns: int = 0
    data: str = "{}"
    binary_data: bytes = b""
    metadata: tuple[tuple[str, str], ...] = ()
    reflect_metadata: tuple[tuple[str, str], ...] = ()
    output: str = ""
    format: str = "summary"
    skip_first: int = 0
    count_errors: bool = False
    connections: int = 1
    name: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    processes: int = 1
    warmup_ns: int = 0
    seed: int = 1

    @property
    def end_ns(self) -> int:
        """When the run stops at the latest."""
        return self.max_duration_ns or self.duration_ns
