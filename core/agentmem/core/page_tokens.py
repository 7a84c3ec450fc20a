"""Page tokens: where the next page begins, and of which query it is the next page."""

from __future__ import annotations

import base64
import hashlib

from google.protobuf.message import Message

from agentmem.core.errors import InvalidArgument, invalid_field

_QUERY_HASH_BYTES = 8


def query_hash(query: Message) -> bytes:
    """What a token belongs to: a request without what may differ from page to page."""
    serialized = query.SerializeToString(deterministic=True)
    return hashlib.blake2b(serialized, digest_size=_QUERY_HASH_BYTES).digest()


def encode_page_token(place: bytes, query: bytes) -> str:
    return base64.urlsafe_b64encode(query + place).decode()


def decode_page_token(token: str, query: bytes) -> bytes:
    """The place where the page begins; empty for the first page.

    Raises:
        InvalidArgument: ``PAGE_TOKEN_MISMATCH``, it belongs to another query; ``INVALID_FIELD``, it was not
            made here.
    """
    if not token:
        return b""
    try:
        data = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError as error:
        raise foreign_token() from error
    place = data[_QUERY_HASH_BYTES:]
    if not place:
        raise foreign_token()
    if data[:_QUERY_HASH_BYTES] != query:
        raise InvalidArgument(
            "PAGE_TOKEN_MISMATCH", "page_token belongs to another request", field="page_token"
        )
    return place


def foreign_token() -> InvalidArgument:
    """The error for a token that this server cannot have made."""
    return invalid_field("page_token", "is not one that this server made")
