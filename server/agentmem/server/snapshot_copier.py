"""The process that copies a store: ``python -m agentmem.server.snapshot_copier STORE FOLDER``.

It writes FOLDER/data.mdb and prints, as JSON, what it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from agentmem.server.store_files import open_read_only

# The processor is for those who read and write.
NICENESS = 10


def main(source: Path, folder: Path) -> None:
    os.nice(NICENESS)
    store = open_read_only(source)
    store.copy(folder)
    store.close()
    copy = open_read_only(folder)
    position = copy.position()
    copy.close()
    (folder / "lock.mdb").unlink(missing_ok=True)
    file = folder / "data.mdb"
    with open(file, "rb") as data:
        sha256 = hashlib.file_digest(data, "sha256").hexdigest()
    print(
        json.dumps(
            {
                "cluster_id": position.cluster_id.hex(),
                "epoch": position.epoch,
                "revision": position.revision,
                "chain_hash": position.chain_hash.hex(),
                "size_bytes": file.stat().st_size,
                "sha256": sha256,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
