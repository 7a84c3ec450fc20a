"""The postings on disk, so that a replica that starts again need not make them of its texts.

    header, a line of JSON     format, crc32c of the rest, tokens of all documents, bytes of each part
    ordinals                   of the documents, uint64
    lengths                    a byte each
    terms                      UTF-8, a line each
    levels                     of each term how many postings follow: at least once, twice, …; a byte each
    sizes                      of each posting in bytes, uint32; 0 for one that is a single ordinal
    singles                    these ordinals, uint64
    bitmaps                    the others, as roaring bitmaps are written

Numbers are little-endian. A file is written under another name, synced and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from agentmem.core.checksums import crc32c
from agentmem.core.data_directory import sync
from agentmem.replica.ordinals import OrdinalSet
from agentmem.replica.postings import Posting, Postings

FORMAT = 1


def write_postings(postings: Postings, path: Path) -> None:
    """Raises OSError."""
    ordinals, lengths, terms = postings.contents()
    each = [posting for levels in terms.values() for posting in levels]
    bitmaps = [b"" if isinstance(posting, int) else posting.serialize() for posting in each]
    singles = [posting for posting in each if isinstance(posting, int)]
    parts = [
        ordinals.astype("<u8").tobytes(),
        lengths.tobytes(),
        "\n".join(terms).encode(),
        bytes(map(len, terms.values())),
        np.array([len(bitmap) for bitmap in bitmaps], dtype="<u4").tobytes(),
        np.array(singles, dtype="<u8").tobytes(),
        b"".join(bitmaps),
    ]
    body = b"".join(parts)
    sizes = [len(part) for part in parts]
    header = {"format": FORMAT, "crc32c": crc32c(body), "tokens": postings.tokens, "bytes": sizes}
    partial = path.with_suffix(".partial")
    partial.write_bytes(json.dumps(header).encode() + b"\n" + body)
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def read_postings(path: Path) -> Postings:
    """Raises OSError, ValueError, KeyError: there is no file, or it is damaged."""
    line, _, body = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    if header["format"] != FORMAT:
        raise ValueError(f"{path} has the format {header['format']}")
    if crc32c(body) != header["crc32c"]:
        raise ValueError(f"{path} fails its checksum")
    ends = [0, *accumulate(header["bytes"])]
    parts = [body[first:end] for first, end in pairwise(ends)]
    ordinals = np.frombuffer(parts[0], dtype="<u8").astype(np.uint64)
    lengths = np.frombuffer(parts[1], dtype=np.uint8)
    terms = parts[2].decode().split("\n") if parts[2] else []
    sizes = np.frombuffer(parts[4], dtype="<u4").tolist()
    each = iter(_postings(sizes, np.frombuffer(parts[5], dtype="<u8").tolist(), parts[6]))
    levels = {term: [next(each) for _ in range(count)] for term, count in zip(terms, parts[3], strict=True)}
    return Postings.of(ordinals, lengths, levels, header["tokens"])


def _postings(sizes: Sequence[int], singles: Sequence[int], bitmaps: bytes) -> list[Posting]:
    found: list[Posting] = []
    first, single = 0, iter(singles)
    for size in sizes:
        found.append(OrdinalSet.deserialize(bitmaps[first : first + size]) if size else next(single))
        first += size
    return found
