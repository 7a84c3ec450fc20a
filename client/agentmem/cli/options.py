"""The options that commands share, and what makes commands of functions. The only module with typer.

A command is a function in one of the modules ``*_commands``; its parameters are annotated with options, and
``main`` gives it its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agentmem.client import DuplicatePolicy, MemoryType

Argument = typer.Argument
Option = typer.Option
Command = Callable[..., None]

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_DATA_DIR = Path(".agentmem")

Target = Annotated[
    str, Option(envvar="AGENTMEM_TARGET", help="Any nodes of the cluster: host:port[,host:port].")
]
Namespace = Annotated[
    str, Option("--namespace", "-n", envvar="AGENTMEM_NAMESPACE", help="Whose memories. Required.")
]
TimeoutS = Annotated[float, Option("--timeout-s", min=0.001, help="Seconds that a call may take.")]
Json = Annotated[bool, Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, Option("--yes", "-y", help="Do not ask.")]
Id = Annotated[str, Argument(help="The id of the memory.")]

UserId = Annotated[str | None, Option("--user-id", help="The user that it is about.")]
AgentId = Annotated[str | None, Option("--agent-id", help="The agent that it belongs to.")]
SessionId = Annotated[str | None, Option("--session-id", help="The session that it comes from.")]
Importance = Annotated[float | None, Option(help="0 to 1.")]
Tags = Annotated[list[str] | None, Option("--tag", help="A tag. Repeatable.")]
Meta = Annotated[
    list[str] | None, Option("--meta", help="key=value; JSON if it is JSON, else text. Repeatable.")
]
EventTime = Annotated[str | None, Option(help="When it happened: an ISO date or time. Default: now.")]
Ttl = Annotated[str | None, Option("--ttl", help="It ends by itself so long after now: 90s, 15m, 2h, 7d.")]
ExpireTime = Annotated[str | None, Option(help="It ends by itself then: an ISO date or time.")]
OnDuplicate = Annotated[
    DuplicatePolicy, Option(help="When the owner has a memory with this content already.")
]
ExpectedVersion = Annotated[int | None, Option(min=1, help="Fail unless this is its newest version.")]

Types = Annotated[list[MemoryType] | None, Option("--type", help="Any of these types. Repeatable.")]
AllTags = Annotated[list[str] | None, Option("--tag", help="Has all of these tags. Repeatable.")]
Since = Annotated[
    str | None, Option(help="Happened then or later: an ISO date or time, UTC if it names no zone.")
]
Until = Annotated[str | None, Option(help="Happened then or earlier; a date means to its end.")]
Where = Annotated[
    str | None,
    Option(
        "--filter",
        "--where",
        help="Which ones, as in: importance > 0.5 and (tags = 'trip' or metadata.city in ('Lima', 'Quito')) "
        "and event_time > now - 7d",
    ),
]
AsOf = Annotated[
    str | None, Option("--as-of", help="As it was: a number is a revision, else an ISO date or time.")
]
ConsistencyText = Annotated[
    str | None,
    Option(
        "--consistency",
        help="How new the answer must be: eventual, strong, at-least=REVISION, max-staleness=2s; or several, "
        "with commas.",
    ),
]
Ack = Annotated[
    str | None,
    Option("--ack", help="When it counts as done: local, replicated:N or applied:N, on N replicas."),
]

DataDir = Annotated[Path, Option("--data-dir", help="The folder of the local cluster.")]


def application(
    help: str,
    epilog: str,
    commands: Mapping[str, Command],
    groups: Mapping[str, tuple[str, Mapping[str, Command]]],
) -> Callable[[], Any]:
    """The program: commands by name, and groups of them with their help."""
    settings: dict[str, Any] = {
        "no_args_is_help": True,
        "add_completion": False,
        "rich_markup_mode": None,
        "pretty_exceptions_enable": False,
        "context_settings": {"help_option_names": ["-h", "--help"]},
    }
    app = typer.Typer(help=help, epilog=epilog, **settings)
    for name, command in commands.items():
        app.command(name)(command)
    for name, (group_help, group_commands) in groups.items():
        group = typer.Typer(help=group_help, **settings)
        for command_name, command in group_commands.items():
            group.command(command_name)(command)
        app.add_typer(group, name=name)
    return app
