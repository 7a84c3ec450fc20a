"""Sessions: reads that show what the session wrote and what it read before, on whatever node."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import time
import uuid
from collections.abc import Sequence

from agentmem.client import consistency as consistencies
from agentmem.client import values
from agentmem.client.async_connection import Link, position_of
from agentmem.client.async_reads import AsyncReads
from agentmem.client.async_transfers import AsyncTransfers
from agentmem.client.async_writes import AsyncWrites
from agentmem.client.consistency import NOWHERE, Consistency, Position
from agentmem.client.errors import RevisionLost, invalid_field
from agentmem.client.selection import Bound, Route
from agentmem.v1 import reader_pb2

TOKEN_PREFIX = "am1."
# Promotions that a session may write through without a read between them.
MAX_UNPROVEN = 16
# Cluster id, epoch, revision; epochs and revisions that are unproven; zero bytes, lest base64 pads; the
# digest of these and the prefix.
_BODY = struct.Struct(">16sQQ")
_UNPROVEN = struct.Struct(">QQ")
_DIGEST_BYTES = 4
_TOKEN = re.compile(re.escape(TOKEN_PREFIX) + r"([A-Za-z0-9_-]{4}){12,103}")
_NO_CLUSTER = uuid.UUID(int=0)


class AsyncSession(AsyncWrites, AsyncReads, AsyncTransfers):
    """Calls of a client that build on each other.

        session = client.session()
        await session.add("demo", "Ana moved to Lisbon")
        await session.search("demo", "where does Ana live?")  # finds it, whichever replica answers

    Each read, a search too, shows every write of the session before it (read your writes) and no less than
    each read before it (monotonic reads), though replicas are behind, die, or a promotion makes another one
    the writer. A replica that is behind waits a moment; then the client asks another.

    It has the methods of the client and shares its connections; there may be many, and none needs closing.
    Calls may run at the same time: a call builds on those that were answered before it began.

    Reads may raise:
        RevisionLost: a promotion left behind a write that the session saw. It goes on saying so: a new
            session begins with what is there now.
        InvalidArgument: the session began with a token of another cluster.

    ``token`` hands the session over to another process: ``client.session(token)`` goes on from there. It is
    text that is safe in a URL: "am1." and the URL-safe base64, 48 characters, of the cluster's UUID (16
    bytes), the epoch and the revision (8 bytes each, big-endian), and a BLAKE2b of 4 bytes of "am1." and
    those. Between a write after a promotion and the next read it is longer: behind the revision comes what
    was seen before each promotion, epoch and revision, and up to two zero bytes. It is no secret and grants
    nothing.
    """

    _has_floor = True

    def __init__(self, link: Link, token: str | None = None) -> None:
        super().__init__(link)
        self._cluster_id, self._position = _NO_CLUSTER, NOWHERE
        # Seen in other epochs, one for each, and not known to be in the history of the position.
        self._unproven: tuple[Position, ...] = ()
        if token is not None:
            self._cluster_id, self._position, self._unproven = parse_token(token)

    @property
    def token(self) -> str:
        """Where the session is, for another process. It changes with each answer."""
        return format_token(self._cluster_id, self._position, self._unproven)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.token!r})"

    async def _admit(self, deadline_s: float) -> None:
        topology = await self._ready_router().topology(deadline_s)
        cluster_id = uuid.UUID(topology.cluster_id)
        if self._cluster_id not in (_NO_CLUSTER, cluster_id):
            raise invalid_field("token", f"is of cluster {self._cluster_id}, and this is {cluster_id}")
        self._cluster_id = cluster_id

    async def _floor(self, namespace: str, deadline_s: float) -> Position:
        if len(self._unproven) > MAX_UNPROVEN:
            raise RevisionLost(
                f"the session wrote through {len(self._unproven)} promotions without a read: what it saw "
                "before may be lost",
                reason="REVISION_LOST",
            )
        if not consistencies.are_of_one_history((self._position, *self._unproven)):
            # Whichever of them is there now: the other may be there again after the next promotion.
            raise RevisionLost(
                f"the session saw {self._position} and {self._unproven}, which are not of one history: a "
                "promotion left some of it behind",
                reason="REVISION_LOST",
            )
        for position in self._unproven:
            await self._prove(position, namespace, deadline_s)
        return self._position

    def _saw(self, position: Position) -> None:
        # The read asked for all that was known.
        self._keep(position, shows_known=True)

    def _wrote(self, position: Position) -> None:
        self._keep(position, shows_known=False)

    def _keep(self, position: Position, *, shows_known: bool) -> None:
        """Takes in a position, and what neither it nor the one before shows to be there, either."""
        known, self._position = self._position, consistencies.later(self._position, position)
        if self._position == position and shows_known:
            return
        # Of two epochs the earlier may be left behind or, by a promotion that goes on from it, the later.
        other = known if self._position == position else position
        if not other.revision or other.epoch == self._position.epoch:
            return
        others = {each.epoch: each for each in self._unproven}
        others[other.epoch] = consistencies.later(others.get(other.epoch, NOWHERE), other)
        self._unproven = tuple(others.values())[: MAX_UNPROVEN + 1]

    async def _prove(self, position: Position, namespace: str, deadline_s: float) -> None:
        """Finds out whether what was seen before a promotion is still there.

        A write after it says nothing of that, unlike a read, which asks for what was seen.
        """
        request = reader_pb2.GetStatsRequest(namespace=namespace)
        message = consistencies.to_proto(Consistency(at_least=position))
        if message is not None:
            request.consistency.CopyFrom(message)
        response = await self._ready_router().read(
            lambda endpoint: endpoint.reader.GetStats,
            request,
            # The writer took the write after the promotion, so it knows.
            route=Route.WRITER_THEN_REPLICAS,
            timeout_s=max(0.0, deadline_s - time.monotonic()),
            bound=Bound(revision=position.revision),
        )
        if position_of(response).epoch >= self._position.epoch:
            self._unproven = tuple(each for each in self._unproven if each != position)


def format_token(cluster_id: uuid.UUID, position: Position, unproven: Sequence[Position] = ()) -> str:
    """The token for a position in a cluster, and those before it that may have been left behind."""
    body = _BODY.pack(cluster_id.bytes, position.epoch, position.revision)
    body += b"".join(_UNPROVEN.pack(each.epoch, each.revision) for each in unproven)
    body += bytes(-(len(body) + _DIGEST_BYTES) % 3)
    return TOKEN_PREFIX + base64.urlsafe_b64encode(body + _digest(body)).decode()


def parse_token(token: object) -> tuple[uuid.UUID, Position, tuple[Position, ...]]:
    """What ``format_token`` was given. Raises InvalidArgument naming ``token``."""
    text = values.text("token", token)
    if not _TOKEN.fullmatch(text):
        raise invalid_field(
            "token", f"is not the token of a session, which is {TOKEN_PREFIX} and 48 characters or more"
        )
    raw = base64.urlsafe_b64decode(text.removeprefix(TOKEN_PREFIX))
    body, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if digest != _digest(body):
        raise invalid_field("token", "was changed since a session gave it out")
    cluster_bytes, epoch, revision = _BODY.unpack_from(body)
    count = (len(body) - _BODY.size) // _UNPROVEN.size
    places = body[_BODY.size : _BODY.size + count * _UNPROVEN.size]
    unproven = tuple(Position(*each) for each in _UNPROVEN.iter_unpack(places))
    return uuid.UUID(bytes=cluster_bytes), Position(epoch, revision), unproven


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(TOKEN_PREFIX.encode() + body, digest_size=_DIGEST_BYTES).digest()
