"""Checks crash images, one for each number on its standard input; a process of its own, for it may crash.

    python image_checker.py TRACE LEDGER FIRST_BYTES SEED FOLDER

Each line of its output is a JSON object: the record the image was cut at, how the store is damaged, and what
of the ledger does not hold.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

from disk_trace import choose_cut, crash_image, read_trace
from ledger import Ledger
from store_audit import Damaged, audit


def main() -> None:
    trace_path, ledger_path, first_bytes, seed, folder = sys.argv[1:]
    trace = read_trace(Path(trace_path))
    ledger = Ledger.load(Path(ledger_path))
    store = Path(folder) / "store"
    for line in sys.stdin:
        number = int(line)
        chance = random.Random(f"{seed}/{number}")
        cut = choose_cut(trace, int(first_bytes), chance)
        shutil.rmtree(store, ignore_errors=True)
        store.mkdir(parents=True)
        (store / "data.mdb").write_bytes(crash_image(trace, cut, chance))
        damage, losses = "", []
        try:
            stored = audit(store, [ledger.namespace])[ledger.namespace]
            losses = ledger.problems(stored, trace[cut - 1].end_bytes)
        except Damaged as error:
            damage = str(error)
        print(json.dumps({"cut": cut, "damage": damage, "losses": losses}), flush=True)


if __name__ == "__main__":
    main()
