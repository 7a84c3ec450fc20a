"""crc32c for stored values."""

from __future__ import annotations

import google_crc32c


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720) of the bytes, 0 to 2**32 - 1."""
    checksum: int = google_crc32c.value(data)
    return checksum
