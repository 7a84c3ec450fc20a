"""The files of the text index: whether all are there and whole."""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

# Each file of tantivy 0.27 ends with: footer (JSON with the crc32 of all before it) | its length | 1337.
_FILE_END = struct.Struct("<II")
_FILE_MAGIC = 1337
# What every segment has, whatever is in its documents; deletions are a file besides.
_SEGMENT_SUFFIXES = (".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term")


def check_files(folder: Path) -> None:
    """Reads the committed files against their checksums: tantivy does not, and panics in a search instead.

    Raises:
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    if not folder.exists():
        return
    for path in _committed_files(folder):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            footer_bytes, magic = _FILE_END.unpack(data[-_FILE_END.size :])
            footer_start = len(data) - _FILE_END.size - footer_bytes
            if magic != _FILE_MAGIC or footer_start < 0:
                raise ValueError(f"{path} has no footer")
            footer = json.loads(data[footer_start : -_FILE_END.size])
            with memoryview(data)[:footer_start] as body:
                if zlib.crc32(body) != footer["crc"]:
                    raise ValueError(f"{path} fails its checksum")


def _committed_files(folder: Path) -> Iterator[Path]:
    """Every file that the last commit needs. Without some of them tantivy opens and fails in a search."""
    for segment in json.loads((folder / "meta.json").read_bytes())["segments"]:
        name = segment["segment_id"].replace("-", "")
        for suffix in _SEGMENT_SUFFIXES:
            yield folder / (name + suffix)
        if segment["deletes"] is not None:
            yield folder / f"{name}.{segment['deletes']['opstamp']}.del"
