"""The Python client of AgentMem: ``Client``, and ``AsyncClient`` with the same methods.

The module ``agentmem.client.errors`` draws the tree of errors; the generated stubs are in ``agentmem.v1``.
"""

from agentmem.client.acknowledgement import (
    LOCAL,
    Acknowledged,
    Acknowledgement,
    AcknowledgementLevel,
    applied,
    replicated,
)
from agentmem.client.answers import (
    AddedMemory,
    AddOutcome,
    AddResult,
    DeleteResult,
    DuplicatePolicy,
    Fuzziness,
    GetResult,
    Hit,
    Page,
    PurgeProgress,
    PurgeReceipt,
    PurgeStatus,
    SearchMode,
    SearchResult,
    UpdatedMemory,
)
from agentmem.client.async_client import AsyncClient
from agentmem.client.async_cluster import NodeStatus, Promoted
from agentmem.client.async_watches import AsyncWatch
from agentmem.client.backup import Backup
from agentmem.client.breakdown import Breakdown, IndexStats, OwnerCounts
from agentmem.client.changes import ChangeKind, MemoryChange, WatchPosition, id_digest
from agentmem.client.consistency import EVENTUAL, STRONG, Consistency, Position, at_least, max_staleness
from agentmem.client.errors import (
    AgentMemError,
    AlreadyExists,
    ClientClosed,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FilterSyntaxError,
    HistoryPruned,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    ResourceExhausted,
    RevisionLost,
    ServerError,
    Unavailable,
    VersionMismatch,
)
from agentmem.client.filters import Field, Filter
from agentmem.client.models import Memory, MemoryType, NewMemory
from agentmem.client.namespaces import (
    BegunReembedding,
    NamespaceSettings,
    NamespaceStats,
    Reembedding,
    Stats,
    StoreStats,
    UpdatedSettings,
    VectorPrecision,
)
from agentmem.client.node_report import CacheUse, MethodCalls, NodeReport, StageTimes
from agentmem.client.searching import SearchExplanation, SearchOrder, SearchSignals, SearchStep, SearchWeights
from agentmem.client.session import AsyncSession
from agentmem.client.statistics import Statistics
from agentmem.client.sync_client import Client, Session
from agentmem.client.sync_watches import Watch
from agentmem.client.times import NanosecondDatetime
from agentmem.client.topology import Node, NodeRole, NodeState, Topology
from agentmem.client.versions import HistoryPage, ImportConflict, ImportResult, MemoryVersion, VersionKind

__all__ = [
    "EVENTUAL",
    "LOCAL",
    "STRONG",
    "Acknowledged",
    "Acknowledgement",
    "AcknowledgementLevel",
    "AddOutcome",
    "AddResult",
    "AddedMemory",
    "AgentMemError",
    "AlreadyExists",
    "AsyncClient",
    "AsyncSession",
    "AsyncWatch",
    "Backup",
    "BegunReembedding",
    "Breakdown",
    "CacheUse",
    "ChangeKind",
    "Client",
    "ClientClosed",
    "Consistency",
    "DataLoss",
    "DeadlineExceeded",
    "DeleteResult",
    "DuplicatePolicy",
    "FailedPrecondition",
    "Field",
    "Filter",
    "FilterSyntaxError",
    "Fuzziness",
    "GetResult",
    "HistoryPage",
    "HistoryPruned",
    "Hit",
    "ImportConflict",
    "ImportResult",
    "IndexStats",
    "InvalidArgument",
    "Memory",
    "MemoryChange",
    "MemoryType",
    "MemoryVersion",
    "MethodCalls",
    "NamespaceSettings",
    "NamespaceStats",
    "NanosecondDatetime",
    "NewMemory",
    "Node",
    "NodeReport",
    "NodeRole",
    "NodeState",
    "NodeStatus",
    "NotFound",
    "OutcomeUnknown",
    "OwnerCounts",
    "Page",
    "Position",
    "Promoted",
    "PurgeProgress",
    "PurgeReceipt",
    "PurgeStatus",
    "Reembedding",
    "ResourceExhausted",
    "RevisionLost",
    "SearchExplanation",
    "SearchMode",
    "SearchOrder",
    "SearchResult",
    "SearchSignals",
    "SearchStep",
    "SearchWeights",
    "ServerError",
    "Session",
    "StageTimes",
    "Statistics",
    "Stats",
    "StoreStats",
    "Topology",
    "Unavailable",
    "UpdatedMemory",
    "UpdatedSettings",
    "VectorPrecision",
    "VersionKind",
    "VersionMismatch",
    "Watch",
    "WatchPosition",
    "applied",
    "at_least",
    "id_digest",
    "max_staleness",
    "replicated",
]
