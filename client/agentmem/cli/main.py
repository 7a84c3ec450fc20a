"""The `agentmem` command: its options, and what each command does. The only module that imports typer."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agentmem.cli import arguments, bundled, documents, importing, printing, supervisor, terminal
from agentmem.cli import cluster as local
from agentmem.cli.connection import DEFAULT_TARGET, connected, translated, unreachable_addresses
from agentmem.cli.failures import CommandError, ExitCode, usage_error
from agentmem.client import MemoryType, NewMemory, SearchMode

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the server or the operation failed; 2 the command or its input is wrong; "
    "3 the memory was not found; 4 the cluster cannot be reached."
)
_MAX_PAGE_SIZE = 500

app = typer.Typer(
    help="Memories of AI agents: add, find and import them, run a cluster on this machine.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[
    str, typer.Option(envvar="AGENTMEM_TARGET", help="Any nodes of the cluster: host:port[,host:port].")
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="AGENTMEM_NAMESPACE", help="Whose memories. Required.")
]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0.001, help="Seconds that a call may take.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
UserId = Annotated[str | None, typer.Option("--user-id", help="The user that it is about.")]
AgentId = Annotated[str | None, typer.Option("--agent-id", help="The agent that it belongs to.")]
SessionId = Annotated[str | None, typer.Option("--session-id", help="The session that it comes from.")]
Types = Annotated[list[MemoryType] | None, typer.Option("--type", help="Any of these types. Repeatable.")]
AllTags = Annotated[list[str] | None, typer.Option("--tag", help="Has all of these tags. Repeatable.")]
Since = Annotated[
    str | None, typer.Option(help="Happened then or later: an ISO date or time, UTC if it names no zone.")
]
Until = Annotated[str | None, typer.Option(help="Happened then or earlier; a date means to its end.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag. Repeatable.")]
Meta = Annotated[
    list[str] | None, typer.Option("--meta", help="key=value; JSON if it is JSON, else text. Repeatable.")
]
Importance = Annotated[float | None, typer.Option(help="0 to 1.")]
EventTime = Annotated[str | None, typer.Option(help="When it happened: an ISO date or time. Default: now.")]
DataDir = Annotated[Path, typer.Option("--data-dir", help="The folder of the local cluster.")]
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_DATA_DIR = Path(".agentmem")


@app.command()
def add(
    content: Annotated[str, typer.Argument(help="The text, or - to read it from standard input.")],
    namespace: Namespace = "",
    id: Annotated[str, typer.Option(help="Its id. Default: one is assigned.")] = "",
    type: Annotated[MemoryType, typer.Option(help="What kind of memory it is.")] = MemoryType.EPISODIC,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    importance: Importance = None,
    tag: Tags = None,
    meta: Meta = None,
    event_time: EventTime = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Adds a memory and prints its id."""
    fields = arguments.fields(user_id, agent_id, session_id, importance, tag, meta, event_time)
    text = arguments.text(content)
    with connected(target, timeout_s, namespace) as client:
        result = client.add(namespace, NewMemory(text, id=id, type=type, **fields))
    added = result.memories[0]
    if json:
        _print_json({"id": added.id, "version": added.version, "revision": result.revision})
    else:
        terminal.say(added.id)


@app.command()
def get(
    id: Annotated[str, typer.Argument(help="The id of the memory.")],
    namespace: Namespace = "",
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints one memory."""
    with connected(target, timeout_s, namespace) as client:
        memory = client.get(namespace, id)
    if memory is None:
        raise CommandError(f"no memory {id!r} in namespace {namespace!r}", ExitCode.NOT_FOUND)
    if json:
        _print_json(documents.from_memory(memory))
    else:
        printing.print_memory(memory)


@app.command()
def update(
    id: Annotated[str, typer.Argument(help="The id of the memory.")],
    namespace: Namespace = "",
    content: Annotated[str | None, typer.Option(help="The new text, or - for standard input.")] = None,
    type: Annotated[MemoryType | None, typer.Option(help="What kind of memory it is.")] = None,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    importance: Importance = None,
    tag: Annotated[list[str] | None, typer.Option(help="Instead of all its tags. Repeatable.")] = None,
    clear_tags: Annotated[bool, typer.Option("--clear-tags", help="Take all its tags away.")] = False,
    meta: Annotated[
        list[str] | None, typer.Option(help="key=value instead of all its metadata. Repeatable.")
    ] = None,
    clear_meta: Annotated[bool, typer.Option("--clear-meta", help="Take all its metadata away.")] = False,
    event_time: Annotated[str | None, typer.Option(help="When it happened: an ISO date or time.")] = None,
    expected_version: Annotated[
        int | None, typer.Option(min=1, help="Fail unless this is its newest version.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Changes the fields that are given and prints the new version."""
    fields = arguments.fields(user_id, agent_id, session_id, importance, tag, meta, event_time)
    if content is not None:
        fields["content"] = arguments.text(content)
    if type is not None:
        fields["type"] = type
    if clear_tags:
        fields["tags"] = ()
    if clear_meta:
        fields["metadata"] = {}
    if not fields:
        raise usage_error("nothing to change: give at least one field, such as --content")
    with connected(target, timeout_s, namespace) as client:
        memory = client.update(namespace, id, expected_version=expected_version, **fields)
    if json:
        _print_json(documents.from_memory(memory))
    else:
        terminal.say(f"{memory.id} is at version {memory.version}")


@app.command()
def delete(
    ids: Annotated[list[str], typer.Argument(help="The ids of the memories.")],
    namespace: Namespace = "",
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Deletes memories. The exit code is 3 when none of them was there."""
    with connected(target, timeout_s, namespace) as client:
        result = client.delete(namespace, ids)
    if json:
        deleted, missing = list(result.deleted_ids), list(result.missing_ids)
        _print_json({"deleted_ids": deleted, "missing_ids": missing, "revision": result.revision})
    else:
        for id in result.deleted_ids:
            terminal.say(f"deleted {id}")
        for id in result.missing_ids:
            terminal.note(f"no memory {id!r} in namespace {namespace!r}")
    if not result.deleted_ids:
        raise typer.Exit(ExitCode.NOT_FOUND)


@app.command("list")
def list_memories(
    namespace: Namespace = "",
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 100,
    with_embedding: Annotated[
        bool, typer.Option("--with-embedding", help="In JSON, embeddings too.")
    ] = False,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints memories in the order of their ids. As JSON lines they can be imported again."""
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    printed, page_token = 0, ""
    with connected(target, timeout_s, namespace) as client:
        while True:
            size = min(_MAX_PAGE_SIZE, limit - printed) if limit else _MAX_PAGE_SIZE
            page = client.list(
                namespace, page_size=size, page_token=page_token, include_embedding=with_embedding, **scope
            )
            if json:
                for memory in page.memories:
                    _print_json(documents.from_memory(memory))
            else:
                printing.print_memories(page.memories)
            printed += len(page.memories)
            page_token = page.next_page_token
            if not page_token or printed == limit:
                break
    if page_token:
        terminal.note(f"there are more than {limit}: see them with --limit, 0 for all")
    elif not printed:
        terminal.note("no memory matches")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="The question.")],
    namespace: Namespace = "",
    mode: Annotated[
        SearchMode, typer.Option(help="By meaning and words, or one of them.")
    ] = SearchMode.HYBRID,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, help="How many hits.")] = 10,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Finds memories, best first. Prints score, time, owner, id and content."""
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    with connected(target, timeout_s, namespace) as client:
        result = client.search(namespace, text, mode=mode, top_k=top_k, **scope)
    if json:
        hits = [{"score": hit.score, "memory": documents.from_memory(hit.memory)} for hit in result.hits]
        _print_json({"hits": hits, "applied_revision": result.applied_revision})
    elif result.hits:
        printing.print_hits(result.hits)
    else:
        terminal.note("no memory matches")


@app.command("import")
def import_memories(
    file: Annotated[str, typer.Argument(help="JSON lines, one memory each; - for standard input.")],
    namespace: Namespace = "",
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Adds memories from JSON lines.

    A line is an object with a content and any of id, type, user_id, agent_id, session_id, importance, tags,
    metadata, embedding, embedding_model and event_time. What the server sets (namespace, create_time,
    update_time, version) may be there and is set anew.

    A line that cannot be imported ends the import: all before it is in then, nothing after it.
    """
    with (
        connected(target, timeout_s, namespace) as client,
        importing.opened(file) as (lines, line_count),
        terminal.progress("importing", line_count) as on_progress,
    ):
        run = importing.Importer(client, namespace, target, on_progress)
        run.run(lines)
    if json:
        _print_json({"imported": run.imported, "revision": run.revision})
    else:
        terminal.say(f"imported {run.imported} memories into {namespace}")


@app.command()
def status(
    target: Target = DEFAULT_TARGET, timeout_s: TimeoutS = DEFAULT_TIMEOUT_S, json: Json = False
) -> None:
    """Prints the nodes of the cluster. LAG is in revisions behind the writer.

    A node that the cluster lists and that nobody can connect to from here is shown as unreachable.
    """
    with connected(target, timeout_s) as client:
        topology = client.topology()
    nodes = printing.described(topology, unreachable_addresses([node.address for node in topology.nodes]))
    if json:
        cluster = {
            "cluster_id": topology.cluster_id,
            "epoch": topology.epoch,
            "answered_by": topology.answered_by,
        }
        _print_json(cluster | {"nodes": nodes})
    else:
        printing.print_nodes(nodes)


@app.command()
def up(
    replicas: Annotated[int, typer.Option(help="How many replicas.")] = 2,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="The writer's; replicas take the next ones. 0: any free ones."),
    ] = 50051,
    with_sample: Annotated[
        bool, typer.Option("--sample", help="Import bundled conversations on the first start.")
    ] = False,
) -> None:
    """Runs a cluster on this machine until Ctrl-C. The processes log to <data-dir>/logs."""
    prepare = bundled.show if with_sample else None
    raise typer.Exit(supervisor.serve(data_dir, local.check_replicas(replicas), port, prepare))


@app.command()
def scale(
    replicas: Annotated[int, typer.Argument(help="How many replicas shall run.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Starts or stops replicas run by `up`. What crashed is started again."""
    cluster = local.LocalCluster(data_dir)
    with translated(str(data_dir)):
        started, stopped, killed = local.scale(cluster, local.check_replicas(replicas))
    for message in killed:
        terminal.note(message)
    for verb, names in (("started", started), ("stopped", stopped)):
        if names:
            terminal.say(f"{verb} {', '.join(names)}")
    terminal.say(f"{len(cluster.owned()) - 1} of {replicas} replicas run in {data_dir}")


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stops a cluster started with `up`. Works whatever became of the command that started it."""
    cluster = local.LocalCluster(data_dir)
    names = [folder.name for folder in cluster.owned()]
    if not names:
        terminal.say(f"nothing runs in {data_dir}")
        return
    supervisor.stop(cluster)
    terminal.say(f"stopped {', '.join(names)}")


def _print_json(document: dict[str, Any]) -> None:
    print(documents.one_line(document))


def run() -> None:
    """The console script: runs the command and exits with its code."""
    code: int | str | None = ExitCode.OK
    try:
        app()
    except SystemExit as exit:
        code = exit.code
    except CommandError as error:
        terminal.fail(str(error))
        code = error.exit_code
    except OSError as error:
        # A folder that may not be written, a full disk.
        terminal.fail(str(error))
        code = ExitCode.FAILED
    try:
        sys.stdout.flush()
    except OSError:
        # The reader has seen enough, or was told why above; Python must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or ExitCode.FAILED
    sys.exit(code)
