"""Requests that may come again: what was answered the first time is answered again.

The outcome of a request with a request_id is part of the log entry that carried it out, so it is on disk
exactly when its effect is, and replicas have it too.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from google.protobuf.message import Message

from agentmem.core.errors import InvalidArgument
from agentmem.core.layout import DIGEST_BYTES, request_key
from agentmem.core.read_transaction import ReadTransaction
from agentmem.core.validation import check_request_id
from agentmem.core.write_transaction import REQUEST_MEMORY_US
from agentmem.v1 import storage_pb2


class RequestKey(NamedTuple):
    """What a request is known by when it comes again."""

    key: bytes
    fingerprint: bytes


def first_outcome(
    request: RequestKey | None, transaction: ReadTransaction, time_us: int
) -> storage_pb2.RequestOutcome | None:
    """What came of the request when it was carried out; None when it was not, or is forgotten.

    Raises:
        InvalidArgument: ``REQUEST_ID_REUSED``, its request_id was used for another request.
    """
    outcome = None if request is None else transaction.request_outcome(request.key)
    if request is None or outcome is None or outcome.time_us < time_us - REQUEST_MEMORY_US:
        return None
    if outcome.fingerprint != request.fingerprint:
        raise InvalidArgument(
            "REQUEST_ID_REUSED",
            "request_id was used for another request: give each request its own",
            field="request_id",
        )
    return outcome


def outcome_of(
    request: RequestKey | None, response: Message, ordinal: int = 0
) -> storage_pb2.RequestOutcome | None:
    """What is kept of a request; ``ordinal`` is the version that an update wrote."""
    if request is None:
        return None
    return storage_pb2.RequestOutcome(
        key=request.key,
        fingerprint=request.fingerprint,
        response=response.SerializeToString(),
        ordinal=ordinal,
    )


def request_key_of(method: str, namespace: str, request_id: str, request: Message) -> RequestKey | None:
    """The key of a request as it was sent; None when it has no request_id. Raises InvalidArgument."""
    if not request_id:
        return None
    check_request_id(request_id)
    fingerprint = hashlib.blake2b(method.encode(), digest_size=DIGEST_BYTES)
    fingerprint.update(request.SerializeToString(deterministic=True))
    return RequestKey(request_key(namespace, request_id), fingerprint.digest())
