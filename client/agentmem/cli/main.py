"""The `agentmem` command: the names of its commands, and its end."""

import os
import sys

from agentmem.cli import (
    capacity_commands,
    cluster_commands,
    deletion_commands,
    memory_commands,
    namespace_commands,
    profile_commands,
    terminal,
    top_commands,
    transfer_commands,
    watch_commands,
)
from agentmem.cli.failures import CommandError, ExitCode
from agentmem.cli.options import application

_EXIT_CODES = (
    "Exit codes: 0 done; 1 the server or the operation failed; 2 the command or its input is wrong; "
    "3 the memory was not found; 4 the cluster cannot be reached."
)

app = application(
    "Memories of AI agents: add, find, move and delete them, run a cluster on this machine.",
    _EXIT_CODES,
    {
        "add": memory_commands.add,
        "get": memory_commands.get,
        "update": memory_commands.update,
        "list": memory_commands.list_memories,
        "search": memory_commands.search,
        "history": memory_commands.history,
        "delete": deletion_commands.delete,
        "receipt": deletion_commands.receipt,
        "import": transfer_commands.import_memories,
        "export": transfer_commands.export,
        "backup": transfer_commands.backup,
        "watch": watch_commands.watch,
        "stats": namespace_commands.stats,
        "reembed": namespace_commands.reembed,
        "status": cluster_commands.status,
        "top": top_commands.top,
        "profile": profile_commands.profile,
        "capacity": capacity_commands.estimate,
        "promote": cluster_commands.promote,
        "up": cluster_commands.up,
        "scale": cluster_commands.scale,
        "down": cluster_commands.down,
    },
    {
        "namespace": (
            "What a namespace keeps.",
            {"show": namespace_commands.show, "set": namespace_commands.change},
        )
    },
)


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
