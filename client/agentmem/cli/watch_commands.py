"""The command that follows changes."""

import sys
from typing import Annotated

from agentmem.cli import arguments, documents, printing, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.options import (
    DEFAULT_TIMEOUT_S,
    AgentId,
    AllTags,
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


def watch(
    namespace: Namespace = "",
    after: Annotated[
        str | None,
        Option(
            help="Behind a position as --json prints it, or a revision; 0 is the beginning. Default: now."
        ),
    ] = None,
    user_id: UserId = None,
    agent_id: AgentId = None,
    session_id: SessionId = None,
    type: Types = None,
    tag: AllTags = None,
    since: Since = None,
    until: Until = None,
    filter: Where = None,
    skip_pruned: Annotated[
        bool, Option("--skip-pruned", help="Leave out versions that retention has removed.")
    ] = False,
    with_embedding: Annotated[bool, Option("--with-embedding", help="In JSON, embeddings too.")] = False,
    limit: Annotated[int, Option(min=0, help="End after so many; 0 for never.")] = 0,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Prints the changes of a namespace as they come, until Ctrl-C.

    With options such as --user-id or --filter those of memories that match after the change or before it, and
    all purges, of which only a digest is left. --timeout-s is how long there may be no node to go on with.
    """
    scope = arguments.scope(user_id, agent_id, session_id, type, tag, since, until)
    narrowing = arguments.where(filter)
    start = arguments.after(after)
    with connected(target, timeout_s, namespace) as client:
        changes = client.watch(
            namespace,
            after=start,
            filter=narrowing,
            include_embedding=with_embedding,
            skip_pruned=skip_pruned,
            **scope,
        )
        with changes:
            try:
                for number, change in enumerate(changes, 1):
                    if json:
                        documents.print_line(documents.from_change(change))
                        # Whoever reads a pipe shall have it now.
                        sys.stdout.flush()
                    else:
                        printing.print_change(change)
                    if number == limit:
                        break
            except KeyboardInterrupt:
                terminal.note("")  # behind the ^C
    if changes.position is not None:
        terminal.note(f"go on with --after {changes.position}")
