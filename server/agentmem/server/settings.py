"""The settings of the writer process."""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.core.config import SettingsError, check_positive, setting
from agentmem.core.settings import NodeSettings

MAX_MAX_FRAME_BYTES = 16 * 1024**2


@dataclass(frozen=True, kw_only=True)
class WriterSettings(NodeSettings):
    """Checked when made. Raises SettingsError."""

    listen: str = setting("address to serve on, host:port; 0 takes a free port", default="127.0.0.1:50051")
    max_queue_commands: int = setting("writes that may wait for a commit", default=4096)
    max_queue_bytes: int = setting("bytes of the writes that may wait for a commit", default=256 * 1024**2)
    max_frame_bytes: int = setting(
        "bytes of log or snapshot that are sent to a replica in one piece; a larger log entry goes alone",
        default=1024**2,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_queue_commands", "max_queue_bytes", "max_frame_bytes")
        if self.max_frame_bytes > MAX_MAX_FRAME_BYTES:
            raise SettingsError(
                f"--max-frame-bytes must be at most {MAX_MAX_FRAME_BYTES}, not {self.max_frame_bytes}"
            )
