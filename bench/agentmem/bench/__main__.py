"""``python -m agentmem.bench COMMAND``."""

import importlib
import sys

# The module of each command, which has ``main(words) -> exit code``; loaded only when it is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "load": ("agentmem.bench.load.command", "call a gRPC method many times and report its latencies"),
    "compare": ("agentmem.bench.load.comparing", "two reports of load side by side"),
    "suite": ("agentmem.bench.suite.run", "measure memory operations, searches, concurrency, replication"),
    "report": ("agentmem.bench.suite.report", "make a report of what was measured"),
    "quick": ("agentmem.bench.suite.quick", "in two minutes, whether calls have become dearer"),
    "telemetry": ("agentmem.bench.telemetry", "CPU per call with and without metrics and traces"),
    "costs": ("agentmem.bench.costs", "what calls and memories cost, for `agentmem capacity`"),
}


def main(words: list[str]) -> int:
    """Runs a command. Exit code 2 when there is none of that name."""
    if not words or words[0] not in COMMANDS:
        print("usage: python -m agentmem.bench COMMAND [...]\n", file=sys.stderr)
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10} {text}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[words[0]]
    code: int = importlib.import_module(module).main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
