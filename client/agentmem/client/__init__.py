"""The Python client of AgentMem: ``Client``, and ``AsyncClient`` with the same methods.

The module ``agentmem.client.errors`` draws the tree of errors; the generated stubs are in ``agentmem.v1``.
"""

from agentmem.client.answers import (
    AddedMemory,
    AddOutcome,
    AddResult,
    DeleteResult,
    DuplicatePolicy,
    GetResult,
    Hit,
    Page,
    PurgeProgress,
    PurgeReceipt,
    PurgeStatus,
    SearchMode,
    SearchResult,
)
from agentmem.client.async_client import AsyncClient
from agentmem.client.backup import Backup
from agentmem.client.errors import (
    AgentMemError,
    AlreadyExists,
    ClientClosed,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    HistoryPruned,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    ServerError,
    Unavailable,
    VersionMismatch,
)
from agentmem.client.filters import Field, Filter
from agentmem.client.models import Memory, MemoryType, NewMemory
from agentmem.client.namespaces import NamespaceSettings, NamespaceStats, Stats, StoreStats, VectorPrecision
from agentmem.client.sync_client import Client
from agentmem.client.times import NanosecondDatetime
from agentmem.client.topology import Node, NodeRole, NodeState, Topology
from agentmem.client.versions import HistoryPage, ImportConflict, ImportResult, MemoryVersion, VersionKind

__all__ = [
    "AddOutcome",
    "AddResult",
    "AddedMemory",
    "AgentMemError",
    "AlreadyExists",
    "AsyncClient",
    "Backup",
    "Client",
    "ClientClosed",
    "DataLoss",
    "DeadlineExceeded",
    "DeleteResult",
    "DuplicatePolicy",
    "FailedPrecondition",
    "Field",
    "Filter",
    "GetResult",
    "HistoryPage",
    "HistoryPruned",
    "Hit",
    "ImportConflict",
    "ImportResult",
    "InvalidArgument",
    "Memory",
    "MemoryType",
    "MemoryVersion",
    "NamespaceSettings",
    "NamespaceStats",
    "NanosecondDatetime",
    "NewMemory",
    "Node",
    "NodeRole",
    "NodeState",
    "NotFound",
    "OutcomeUnknown",
    "Page",
    "PurgeProgress",
    "PurgeReceipt",
    "PurgeStatus",
    "ResourceExhausted",
    "SearchMode",
    "SearchResult",
    "ServerError",
    "Stats",
    "StoreStats",
    "Topology",
    "Unavailable",
    "VectorPrecision",
    "VersionKind",
    "VersionMismatch",
]
