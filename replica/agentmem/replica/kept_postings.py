"""The postings of a text index, with their file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from agentmem.replica.ordinals import OrdinalArray, OrdinalSet, ordinal_set
from agentmem.replica.postings import Postings
from agentmem.replica.postings_file import read_postings, write_postings
from agentmem.replica.word_scores import WordScores

POSTINGS_FILE = "postings"
# The postings are written when a quarter more documents were added, and so many; and at the end. What was
# added since is read from the store at the next start.
MIN_WRITTEN_DOCUMENTS = 20_000

_logger = logging.getLogger(__name__)


class KeptPostings:
    """The writing side. One thread uses it.

    Args:
        folder: None when they are in memory alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / POSTINGS_FILE
        self._postings = Postings()
        if self._file is not None and self._file.exists():
            try:
                self._postings = read_postings(self._file)
            except (OSError, ValueError, KeyError) as error:
                _logger.warning("the postings are built again from the store: %s", error)
        self._written_documents = self._postings.documents
        self._held = OrdinalSet()

    def keep_only(self, live: OrdinalArray) -> OrdinalSet:
        """Deletes all but these documents, at the start; returns those that need not be added again.

        Args:
            live: uint64 [n], ascending.
        """
        wanted, found = ordinal_set(live), ordinal_set(self._postings.ordinals)
        dead, missing = found - wanted, wanted - found
        for ordinal in dead:
            self._postings.delete(ordinal)
        if dead and (not wanted or max(dead) > max(wanted)):
            # An older state of the store gives such ordinals a second time.
            self._postings = self._postings.cut()
        if missing and found and min(missing) < max(found):
            # Documents are only added behind all others.
            self._postings = Postings()
            return OrdinalSet()
        self._held = found & wanted
        return self._held

    def add(self, ordinal: int, prefix: str, tokens: Sequence[str]) -> None:
        """Adds a document, unless the file had it. Its ordinal is larger than all before.

        Args:
            prefix: with a token it is a term.
        """
        if ordinal not in self._held:
            self._postings.add(ordinal, prefix, tokens)

    def delete(self, ordinal: int) -> None:
        """Says that nobody will ask for a document any more."""
        self._postings.delete(ordinal)

    def maintain(self) -> None:
        """Cuts off what was deleted, and writes the file, when it pays. Raises OSError."""
        self._postings.settle()
        if self._postings.is_worn:
            self._postings = self._postings.cut()
            self._written_documents = 0
        added = self._postings.documents - self._written_documents
        if added >= max(MIN_WRITTEN_DOCUMENTS, self._written_documents // 4):
            self._write()

    def words(self) -> WordScores:
        """With all that was added so far."""
        self._postings.show()
        return WordScores(self._postings)

    def close(self) -> None:
        """Writes the file. Raises OSError."""
        self._postings.show()
        if self._postings.documents != self._written_documents:
            self._write()

    def _write(self) -> None:
        if self._file is not None:
            write_postings(self._postings, self._file)
        self._written_documents = self._postings.documents
