"""How far a write must be when it is answered, and how far it was.

client.add("demo", "Ana likes tea", acknowledgement=replicated(2))
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol, TypeAlias

from agentmem.client import values
from agentmem.v1 import consistency_pb2

_MAX_INT32 = 2**31 - 1


class AcknowledgementLevel(StrEnum):
    """LOCAL: on the writer's disk. REPLICATED: on the disks of replicas, too. APPLIED: in their searches."""

    LOCAL = "local"
    REPLICATED = "replicated"
    APPLIED = "applied"


@dataclass(frozen=True)
class Acknowledgement:
    """When a write is answered. It is on the writer's disk in any case.

    Attributes:
        replicas: by how many replicas the level must be reached, 1 to 100.
        timeout: how long to wait for them, up to 60 s and to the deadline of the call; 5 s when None.
    """

    level: AcknowledgementLevel = AcknowledgementLevel.LOCAL
    replicas: int = 1
    timeout: timedelta | None = None


LOCAL = Acknowledgement()

# An Acknowledgement, or the name of a level, which then is that of one replica.
AcknowledgementInput: TypeAlias = Acknowledgement | str


def replicated(replicas: int = 1, *, timeout: timedelta | float | None = None) -> Acknowledgement:
    """Answered when the write is on the disks of so many replicas, or the timeout is over."""
    return _acknowledgement(AcknowledgementLevel.REPLICATED, replicas, timeout)


def applied(replicas: int = 1, *, timeout: timedelta | float | None = None) -> Acknowledgement:
    """Answered when the searches of so many replicas show the write, or the timeout is over."""
    return _acknowledgement(AcknowledgementLevel.APPLIED, replicas, timeout)


def _acknowledgement(level: AcknowledgementLevel, replicas: object, timeout: object) -> Acknowledgement:
    return Acknowledgement(
        level,
        values.integer("acknowledgement", replicas, low=1, high=_MAX_INT32),
        None if timeout is None else values.to_timedelta(values.duration("acknowledgement", timeout)),
    )


def checked_acknowledgement(value: object) -> Acknowledgement:
    """An acknowledgement that was given by a caller."""
    if isinstance(value, Acknowledgement):
        return value
    return Acknowledgement(values.choice("acknowledgement", value, AcknowledgementLevel))


_LEVEL_TO_PROTO = {
    AcknowledgementLevel.REPLICATED: consistency_pb2.ACKNOWLEDGEMENT_LEVEL_REPLICATED,
    AcknowledgementLevel.APPLIED: consistency_pb2.ACKNOWLEDGEMENT_LEVEL_APPLIED,
}


def acknowledgement_to_proto(wanted: Acknowledgement) -> consistency_pb2.Acknowledgement | None:
    """The message; None for LOCAL."""
    if wanted.level is AcknowledgementLevel.LOCAL:
        return None
    message = consistency_pb2.Acknowledgement(level=_LEVEL_TO_PROTO[wanted.level], replicas=wanted.replicas)
    if wanted.timeout is not None:
        message.timeout.CopyFrom(values.duration("acknowledgement", wanted.timeout))
    return message


@dataclass(frozen=True)
class Acknowledged:
    """How far a write was when it was answered. It is done in any case, and replicas that come get it.

    Attributes:
        reached: whether the level asked for was reached in time.
        replicated: replicas that have it on their disks.
        applied: replicas whose searches show it.
    """

    reached: bool
    replicated: int
    applied: int


class _Written(Protocol):
    @property
    def acknowledged(self) -> consistency_pb2.Acknowledged: ...
    def HasField(self, field_name: str, /) -> bool: ...


def acknowledged_from_proto(response: _Written) -> Acknowledged | None:
    """How far the write of a response was; None when nothing was asked for but LOCAL."""
    if not response.HasField("acknowledged"):
        return None
    message = response.acknowledged
    return Acknowledged(message.reached, message.replicated, message.applied)
