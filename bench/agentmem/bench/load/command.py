"""``python -m agentmem.bench load``: makes a run and prints its report."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from agentmem.bench.load.arguments import read_options
from agentmem.bench.load.errors import LoadError
from agentmem.bench.load.printers import DETAILED_FORMATS, print_report
from agentmem.bench.load.processes import run_load
from agentmem.bench.load.reports import build_report


def main(words: Sequence[str]) -> int:
    """0 when the run was made, whatever came of its calls.

    Otherwise stderr says why: 2 when it is refused, 130 when it was interrupted before the first call.
    """
    try:
        options = read_options(words)
        if options.output and not Path(options.output).absolute().parent.is_dir():
            raise LoadError(f"output: no folder {Path(options.output).parent}")
        recordings = run_load(options)
    except LoadError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first call", file=sys.stderr)
        return 130
    report = build_report(options, recordings, datetime.now(UTC), options.format in DETAILED_FORMATS)
    text = print_report(report, options.format)
    if options.output:
        Path(options.output).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0
