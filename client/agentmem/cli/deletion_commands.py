"""The commands that delete memories, and show what became of a purge."""

from typing import Annotated

from agentmem.cli import arguments, documents, printing, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.failures import CommandError, ExitCode, usage_error
from agentmem.cli.options import (
    DEFAULT_TIMEOUT_S,
    Ack,
    AgentId,
    AllTags,
    Argument,
    ExpectedVersion,
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
    Yes,
)
from agentmem.client import Client, DeleteResult, Filter
from agentmem.client.filters import Scope

_COUNTED_PAGE_SIZE = 1000


def delete(
    ids: Annotated[list[str] | None, Argument(help="The ids of the memories.")] = None,
    namespace: Namespace = "",
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    filter: Where = None,
    everything: Annotated[bool, Option("--everything", help="All memories of the namespace.")] = False,
    purge: Annotated[bool, Option("--purge", help="Remove all their versions for good.")] = False,
    expected_version: ExpectedVersion = None,
    yes: Yes = False,
    ack: Ack = None,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Deletes memories by id, or those that match all of the options.

    Without ids it says how many match, and asks. The exit code is 3 when none was there.

    A purge also takes earlier versions and memories deleted before: those that match in any version. It
    prints a receipt.
    """
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    narrowing = arguments.where(filter)
    narrowed = narrowing is not None or any(value is not None for value in scope.values())
    if bool(ids) + narrowed + everything != 1:
        raise usage_error("delete what? give ids, or options such as --user-id or --filter, or --everything")
    if expected_version is not None and len(ids or ()) != 1:
        raise usage_error("--expected-version: needs exactly one id")
    acknowledgement = arguments.acknowledgement(ack)
    with connected(target, timeout_s, namespace) as client:
        if ids:
            result = client.delete(
                namespace,
                ids,
                purge=purge,
                expected_version=expected_version,
                acknowledgement=acknowledgement,
            )
        else:
            if not yes:
                _ask(client, namespace, narrowing, scope, purge, json)
            result = client.delete_matching(
                namespace,
                filter=narrowing,
                everything=everything,
                purge=purge,
                acknowledgement=acknowledgement,
                **scope,
            )
    if json:
        documents.print_line(documents.from_deletion(result))
    else:
        _say(result, bool(ids), namespace, purge)
        printing.note_acknowledged(result.acknowledged)
    if not result.deleted_count:
        raise SystemExit(ExitCode.NOT_FOUND)


def _ask(
    client: Client, namespace: str, narrowing: Filter | None, scope: Scope, purge: bool, json: bool
) -> None:
    """Goes on when the user says yes to the number of memories that match."""
    if json or not terminal.can_ask():
        raise usage_error("--yes: is needed where nobody can be asked")
    memories = client.iterate(namespace, filter=narrowing, page_size=_COUNTED_PAGE_SIZE, **scope)
    count = sum(1 for _ in memories)
    more = ", and deleted ones and earlier versions that match, for good" if purge else ""
    if not terminal.confirmed(f"delete {count} memories of namespace {namespace!r}{more}?"):
        raise CommandError("nothing was deleted")


def _say(result: DeleteResult, by_id: bool, namespace: str, purge: bool) -> None:
    verb = "purged" if purge else "deleted"
    if by_id:
        for id in result.deleted_ids:
            terminal.say(f"{verb} {id}")
        for id in result.missing_ids:
            terminal.note(f"no memory {id!r} in namespace {namespace!r}")
    elif result.deleted_count:
        terminal.say(f"{verb} {result.deleted_count} memories")
    else:
        terminal.note("no memory matches")
    if result.receipt is not None:
        revision = result.receipt.revision
        terminal.say(f"receipt {revision}: `agentmem receipt {revision}` shows who has carried it out")


def receipt(
    revision: Annotated[int, Argument(min=1, help="The revision that the purge printed.")],
    namespace: Namespace = "",
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints what a purge removed, and which nodes have carried it out."""
    with connected(target, timeout_s, namespace) as client:
        status = client.purge_receipt(namespace, revision)
    if json:
        documents.print_line(documents.from_purge_status(status))
    else:
        printing.print_purge_status(status)
