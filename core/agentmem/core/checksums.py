"""crc32c for stored values."""

from __future__ import annotations

import google_crc32c


def crc32c(data: bytes, before: int = 0) -> int:
    """CRC-32C (Castagnoli, RFC 3720) of the bytes, 0 to 2**32 - 1; ``before``: of what stands before them."""
    return int(google_crc32c.extend(before, data))
