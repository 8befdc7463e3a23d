"""The writer of a zoo: commits that are drafted anew for as long as others come first."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from f2l_fed.errors import ZooError
from f2l_fed.zoo import index
from f2l_fed.zoo.format import commit_log
from f2l_fed.zoo.format.manifest import Manifest
from f2l_fed.zoo.index import Index
from f2l_fed.zoo.maintenance import compaction
from f2l_fed.zoo.records import Commit, Record
from f2l_fed.zoo.storage.store import Store

T = TypeVar("T")

Choice = Callable[[sqlite3.Connection, Manifest], tuple[Record, ...]]
"""A question to the index: the records to be moved next; empty if there are none."""

ATTEMPTS = 100
_LONGEST_PAUSE_S = 0.1


class Writer:
    """The writer of one zoo; the caller holds the store's lock.

    Args:
        store: The store.
        view: The index.
        manifest: The manifest.
    """

    def __init__(self, store: Store, view: Index, manifest: Manifest) -> None:
        self.store, self.index, self.manifest = store, view, manifest

    def commit(
        self,
        question: Callable[[], tuple[Commit, T]],
        draft: Callable[[Commit, T], commit_log.Entry | None],
    ) -> Commit:
        """Publishes the entry that is drafted from the answer to a question.

        Args:
            question: Returns the last commit, and what the draft needs as of this commit.
            draft: Returns the entry that is to follow a commit; None if there is nothing to do.

        Returns:
            The new commit, or the last one if there was nothing to do.

        Raises:
            ZooError: If the draft can't be made, though the log is as the question found it.
        """
        for attempt in range(ATTEMPTS):
            head, answer = question()
            started = time.monotonic()
            try:
                entry = draft(head, answer)
            except ZooError:
                # In a store without locks, rows may have moved from a file that is gone now.
                if self.index.head() == head:
                    raise
                continue
            if entry is None:
                return head
            if time.monotonic() - started > self.store.patience_s:
                continue
            commit = commit_log.publish(self.store, entry)
            if commit is not None:
                self.index.learn(commit, entry)
                return commit
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.001 * 2**attempt)))
        raise ZooError(
            "too many concurrent writers",
            where=self.store.describe("log"),
            got=f"{ATTEMPTS} lost races",
            remedy="Repeat; nothing was added.",
        )

    def move(self, choose: Choice, *, check: bool) -> None:
        """Moves records to new shards, as long as any are chosen.

        Args:
            choose: Chooses records.
            check: Whether damaged rows are refused, see `compaction.write`.

        Raises:
            ZooError: If a row is missing or damaged, or can't be written.
        """
        left = True

        def question() -> tuple[Commit, tuple[Record, ...]]:
            return self.index.ask(lambda db: (index.head(db), choose(db, self.manifest)))

        def draft(head: Commit, records: tuple[Record, ...]) -> commit_log.Entry | None:
            nonlocal left
            left = bool(records)
            if not left:
                return None
            return compaction.write(self.store, self.manifest, head, records, check=check)

        while left:
            self.commit(question, draft)
