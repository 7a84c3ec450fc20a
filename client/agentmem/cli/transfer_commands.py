"""The commands that move memories: imports, exports, backups."""

import sys
from pathlib import Path
from typing import Annotated

from agentmem.cli import arguments, documents, exporting, importing, printing, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.options import (
    DEFAULT_TIMEOUT_S,
    Ack,
    AgentId,
    AllTags,
    Argument,
    ConsistencyText,
    Json,
    Namespace,
    Option,
    SessionId,
    Since,
    Target,
    TimeoutS,
    Types,
    Until,
    UserId,
    Where,
)
from agentmem.client import DuplicatePolicy


def import_memories(
    file: Annotated[str, Argument(help="JSON lines: an export, or new memories; - for standard input.")],
    namespace: Namespace = "",
    on_duplicate: Annotated[
        DuplicatePolicy | None,
        Option(help="Of new memories: when the owner has one with this content. Default: add."),
    ] = None,
    skip_existing: Annotated[
        bool, Option("--skip-existing", help="Of an export: leave out versions that are there.")
    ] = False,
    ack: Ack = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Takes in an export, or adds memories from JSON lines.

    An export, which its first line tells, is taken in as it was: versions, deletions, times and embeddings.

    Otherwise a line is an object with a content and any of id, type, user_id, agent_id, session_id,
    importance, tags, metadata, embedding, embedding_model, event_time, and expire_time or ttl (seconds). What
    the server sets (namespace, create_time, update_time, version) may be there and is set anew.

    A line that cannot be imported ends the import: all before it is in then, nothing after it.
    """
    acknowledgement = arguments.acknowledgement(ack)
    with (
        connected(target, timeout_s, namespace) as client,
        importing.opened(file) as (lines, line_count),
        terminal.progress("importing", line_count) as on_progress,
    ):
        done = importing.run(
            client,
            namespace,
            lines,
            target=target,
            on_progress=on_progress,
            on_duplicate=on_duplicate,
            skip_existing=skip_existing,
            acknowledgement=acknowledgement,
        )
    if json:
        documents.print_line(
            {
                "imported": done.imported,
                "skipped": done.skipped,
                "merged": done.merged,
                "revision": done.revision,
                "epoch": done.epoch,
                "acknowledged": documents.from_acknowledged(done.acknowledged),
            }
        )
        return
    terminal.say(f"imported {done.imported} {done.what} into {namespace}")
    for verb, count in (("skipped", done.skipped), ("merged", done.merged)):
        if count:
            terminal.say(f"{verb} {count}")
    printing.note_acknowledged(done.acknowledged)


def export(
    file: Annotated[str, Argument(help="Where to; - for standard output. A file there is replaced.")],
    namespace: Namespace = "",
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    filter: Where = None,
    newest_only: Annotated[
        bool, Option("--newest-only", help="Without older versions and deleted memories.")
    ] = False,
    consistency: ConsistencyText = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Writes the versions of a namespace as JSON lines, for `import`; all as of one revision.

    With options such as --user-id or --filter those of the memories whose newest version matches; else of
    all, deleted ones too. The file is there when it is complete.
    """
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    narrowing = arguments.where(filter)
    wanted = arguments.consistency(consistency)
    with connected(target, timeout_s, namespace) as client, terminal.progress("exporting", None) as advance:
        versions = client.export(
            namespace, filter=narrowing, newest_only=newest_only, consistency=wanted, **scope
        )
        if file == "-":
            count = exporting.write(versions, sys.stdout.buffer, advance)
        else:
            with exporting.replaced(Path(file)) as output:
                count = exporting.write(versions, output, advance)
    if file == "-":
        terminal.note(f"exported {count} versions of namespace {namespace!r}")
    elif json:
        documents.print_line({"exported": count})
    else:
        terminal.say(f"exported {count} versions of namespace {namespace!r} to {file}")


def backup(
    folder: Annotated[Path, Argument(help="A new or empty folder.")],
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Copies the writer's whole store into a folder, while it goes on.

    The folder has data.mdb, and manifest.json when it is complete and its checksum was compared. --timeout-s
    is how long the writer may be out of reach at a time.
    """
    with connected(target, timeout_s) as client, terminal.byte_progress("copying") as on_progress:
        made = client.backup(folder, on_progress=on_progress)
    if json:
        documents.print_line(documents.from_backup(made))
    else:
        terminal.say(f"{folder} holds revision {made.revision} of cluster {made.cluster_id}")
