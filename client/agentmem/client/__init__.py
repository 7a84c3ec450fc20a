"""The Python client of AgentMem: ``Client``, and ``AsyncClient`` with the same methods.

The module ``agentmem.client.errors`` draws the tree of errors; the generated stubs are in ``agentmem.v1``.
"""

from agentmem.client.async_client import AsyncClient
from agentmem.client.errors import (
    AgentMemError,
    AlreadyExists,
    ClientClosed,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    ServerError,
    Unavailable,
    VersionMismatch,
)
from agentmem.client.filters import Field, Filter
from agentmem.client.models import (
    AddedMemory,
    AddResult,
    DeleteResult,
    GetResult,
    Hit,
    Memory,
    MemoryType,
    NewMemory,
    Page,
    SearchMode,
    SearchResult,
)
from agentmem.client.sync_client import Client
from agentmem.client.topology import Node, NodeRole, NodeState, Topology

__all__ = [
    "AddResult",
    "AddedMemory",
    "AgentMemError",
    "AlreadyExists",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "DataLoss",
    "DeadlineExceeded",
    "DeleteResult",
    "FailedPrecondition",
    "Field",
    "Filter",
    "GetResult",
    "Hit",
    "InvalidArgument",
    "Memory",
    "MemoryType",
    "NewMemory",
    "Node",
    "NodeRole",
    "NodeState",
    "NotFound",
    "OutcomeUnknown",
    "Page",
    "ResourceExhausted",
    "SearchMode",
    "SearchResult",
    "ServerError",
    "Topology",
    "Unavailable",
    "VersionMismatch",
]
