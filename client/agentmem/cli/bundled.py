"""The bundled conversations: imported once, and shown with a search."""

from collections.abc import Sequence
from pathlib import Path

from agentmem.cli import conversations, printing, terminal
from agentmem.cli.cluster import LocalCluster, wait_searchable
from agentmem.cli.connection import DEFAULT_TARGET
from agentmem.cli.conversations import Conversation
from agentmem.cli.failures import CommandError, from_client
from agentmem.client import Client, NewMemory
from agentmem.client.errors import AgentMemError

FOLDER = Path(__file__).parent / "sample"
BATCH_SIZE = 500
_EXAMPLE_HITS = 3


def show(cluster: LocalCluster) -> None:
    """Imports the sample into a cluster that has none of it yet, and prints one search with its hits."""
    loaded = conversations.load_folder(FOLDER)
    target = cluster.writer_address()
    try:
        with Client(target) as client:
            _import_where_empty(client, loaded)
            if cluster.replicas():
                _show_search(client, loaded[0], target)
    except AgentMemError as error:
        raise CommandError(f"the sample could not be imported: {from_client(error, target)}") from error


def namespace(conversation: Conversation) -> str:
    """Where a bundled conversation goes."""
    return f"sample/{conversation.name}"


def _import_where_empty(client: Client, loaded: Sequence[Conversation]) -> None:
    revision = 0
    for conversation in loaded:
        name = namespace(conversation)
        if not client.list(name, page_size=1).memories:
            memories = conversation.memories()
            revision = add_in_batches(client, name, memories)
            terminal.say(f"imported {len(memories)} memories into {name}")
    if revision and client.topology().replicas:
        wait_searchable(client, revision)


def add_in_batches(client: Client, name: str, memories: Sequence[NewMemory]) -> int:
    """Adds memories and returns the revision of the last of them."""
    revision = 0
    for start in range(0, len(memories), BATCH_SIZE):
        revision = client.add_many(name, memories[start : start + BATCH_SIZE]).revision
    return revision


def _show_search(client: Client, conversation: Conversation, target: str) -> None:
    question = next((question.text for question in conversation.questions if question.evidence), "")
    if not question:
        return
    name = namespace(conversation)
    option = "" if target == DEFAULT_TARGET else f" --target {target}"
    terminal.say(f'\n$ agentmem search -n {name} "{question}" --top-k {_EXAMPLE_HITS}{option}')
    printing.print_hits(client.search(name, question, top_k=_EXAMPLE_HITS).hits)
    terminal.say()
