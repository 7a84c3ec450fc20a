"""Sets of ordinals as roaring bitmaps. This is the only module that imports pyroaring.

Every call into pyroaring holds the interpreter's lock from beginning to end, so one thread may add to a set
that others read: each call sees the set before or after, never in between.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap64 as OrdinalSet

OrdinalArray = npt.NDArray[np.uint64]

__all__ = ["OrdinalArray", "OrdinalSet", "joined_ordinals", "ordinal_array", "ordinal_set", "places_of"]


def ordinal_set(ordinals: OrdinalArray) -> OrdinalSet:
    """The set of the ordinals, uint64 [n], in any order."""
    # pyroaring takes an array.array as a whole, but a NumPy array element by element, 50 times slower.
    values = array("Q")
    values.frombytes(ordinals.tobytes())
    return OrdinalSet(values)


def ordinal_array(ordinals: OrdinalSet) -> OrdinalArray:
    """The ordinals, uint64 [n], ascending."""
    return np.frombuffer(ordinals.to_array(), dtype=np.uint64)


def joined_ordinals(sets: Iterable[OrdinalSet]) -> OrdinalArray:
    """The ordinals of several sets, uint64 [n], one set behind the other, each ascending."""
    return np.frombuffer(b"".join([each.to_array() for each in sets]), dtype=np.uint64)


def places_of(ordinals: OrdinalArray, known: OrdinalArray) -> npt.NDArray[np.intp]:
    """The place of each of some ordinals among those known, [n].

    Args:
        ordinals: uint64 [n], all of them known.
        known: uint64 [m], ascending.
    """
    if len(known) and int(known[-1]) - int(known[0]) + 1 == len(known):
        places: npt.NDArray[np.intp] = (ordinals - known[0]).astype(np.intp)  # no gaps, as after an import
        return places
    return np.searchsorted(known, ordinals)
