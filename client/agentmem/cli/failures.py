"""What went wrong, in a line or two that say what to do, and the exit code for it."""

import re
from enum import IntEnum

from agentmem.client import errors

_BATCH_POSITION = re.compile(r"^memories\[\d+\][.:]? ?")


class ExitCode(IntEnum):
    """The exit codes of `agentmem`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4


class CommandError(Exception):
    """A failure of a command that was foreseen: its text is all that the user sees."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def usage_error(message: str) -> CommandError:
    """For input that can never work as it is."""
    return CommandError(message, ExitCode.USAGE)


def from_client(error: errors.AgentMemError, target: str) -> CommandError:
    """The failure of a call to the cluster at the target, for people."""
    # Whoever adds one memory has not heard of batches.
    text = _BATCH_POSITION.sub("", str(error))
    match error:
        case errors.OutcomeUnknown():
            return CommandError(f"{text}\nlook before trying again, or allow more time with --timeout-s")
        case errors.Unavailable() if error.reason == "EMBEDDER_FAILED":
            return CommandError(text)
        case errors.Unavailable():
            return unreachable(target, text)
        case errors.DeadlineExceeded():
            return CommandError(f"{text}\nallow more time with --timeout-s")
        case errors.InvalidArgument():
            return usage_error(text)
        case errors.NotFound():
            return CommandError(text, ExitCode.NOT_FOUND)
        case errors.ResourceExhausted() if error.retry_after_s is not None:
            return CommandError(f"{text}\ntry again in {error.retry_after_s:g} s")
        case _:
            return CommandError(text)


def unreachable(target: str, problem: str) -> CommandError:
    """No node at the target can do it now."""
    return CommandError(
        f"cannot reach {target}: {problem}\n"
        "is the cluster running? `agentmem status` shows its nodes, `agentmem up` starts one here",
        ExitCode.UNREACHABLE,
    )
