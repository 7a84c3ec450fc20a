"""The process that builds the index of one segment: ``python -m agentmem.replica.segment_builder FOLDER …``.

It is a process of its own because adding items to Annoy holds the interpreter's lock for seconds, and it
runs at low priority so that queries and the feed come first. The folder holds ordinals and rows already.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Beside one that is always busy it still gets a seventieth of a core.
NICENESS = 19


def main() -> None:
    os.nice(NICENESS)
    # Loading these is a part of the work.
    from agentmem.replica.segment import KINDS, write_segment

    parser = argparse.ArgumentParser(description="Builds the index of one vector segment.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dimension", type=int, required=True)
    parser.add_argument("--space", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, default="annoy")
    parser.add_argument("--replaces", nargs="*", default=[])
    arguments = parser.parse_args()
    write_segment(
        arguments.folder,
        dimension=arguments.dimension,
        kind=arguments.kind,
        replaces=arguments.replaces,
        space=arguments.space,
    )


if __name__ == "__main__":
    main()
