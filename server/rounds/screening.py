"""Admission during a run: the admission history, kept in step with the zoo and the folder.

The zoo decides what was admitted; the history only follows it. It is written at the end of every
exchange, and until then each admitted submission leaves its part of it in the run cache, so that a
run that was killed judges the rest as it would have. What neither knows (a submission that was
released from quarantine, a file that is gone) is measured from the zoo, and what the zoo has lost
by an erasure is forgotten.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from torch import Tensor

from f2l_fed.admission import (
    KINDS,
    History,
    Screen,
    ScreeningResult,
    Submission,
    load_history,
    review_cohort,
    save_history,
    synchronise_history,
)
from f2l_fed.admission.history_file import from_bytes, to_bytes
from f2l_fed.core.locks import locked
from f2l_fed.errors import AdmissionError
from server.federation.file_names import site_digest
from server.federation.folder import Federation
from server.rounds.run_cache import write_part


class Screening:
    """The screening of one run: judges submissions and keeps the admission history.

    Args:
        federation: The folder.
        parts: Folder for the submissions admitted since the history was last written.
        screen: Judges submissions against the history.
        first_anchor: (D,) float32, the anchor of the lineage.
        history: The admission history.
    """

    def __init__(
        self,
        federation: Federation,
        parts: Path,
        *,
        screen: Screen,
        first_anchor: Tensor,
        history: History,
    ) -> None:
        self._federation, self._parts = federation, parts
        self._screen, self._anchor = screen, first_anchor
        self._expected_sites = 0
        self.history = history

    @classmethod
    def open(cls, federation: Federation, parts: Path) -> Screening:
        """Reads the history, adds the parts that a killed run left, and follows the zoo."""
        config = federation.config
        limits = config.admission
        if config.has_shared_network:
            limits = limits.of_shared()
        screening = cls(
            federation,
            parts,
            screen=Screen.of(federation.target, config.lineage, config.pairs, limits),
            first_anchor=federation.first_start,
            history=load_history(federation.screening),
        )
        screening._join_parts()
        screening.follow_zoo()
        return screening

    def begin_round(self, expected_sites: int) -> None:
        """Follows the zoo and notes how many sites are expected in the round."""
        self.follow_zoo()
        self._expected_sites = expected_sites

    def judge(self, submission: Submission) -> ScreeningResult:
        """Screens a submission; the history does not change."""
        return self._screen.judge(submission, self.history, self._expected_sites)

    def holds(self, submission: Submission) -> bool:
        """Whether a submission of the same site and round is in the zoo."""
        return self.history.networks_of(submission.id) > 0

    def keep_part(self, judged: ScreeningResult) -> None:
        """Writes an admitted submission's part of the history; call it before the zoo has it."""
        submission_id = judged.submission.id
        path = self._parts / f"{site_digest(submission_id.site)}-{submission_id.round}.safetensors"
        write_part(path, to_bytes(judged.part))

    def remember(self, judged: ScreeningResult) -> None:
        """Takes an admitted submission into the history; call it once the zoo has it."""
        judged.remember(self.history)

    def follow_zoo(self) -> None:
        """Adds what the zoo got from elsewhere to the history, and removes what it lost."""
        self.history = synchronise_history(
            self.history,
            self._federation.zoo.snapshot(),
            self._screen.sketch,
            self._anchor,
            self._screen.config.recall,
        )

    def review(self) -> None:
        """Reviews the cohort at the end of an exchange; the history is durable on return.

        Late updates of first rounds are reviewed in later rounds too.
        """
        with lock_history(self._federation):
            self.follow_zoo()
            for kind in KINDS:
                self.history, _ = review_cohort(self.history, kind, self._screen.config)
            self.history = self.history.of_last_rounds(self._screen.config.recall)
            save_history(self._federation.screening, self.history)
        for path in self._parts.glob("*"):
            path.unlink(missing_ok=True)

    def _join_parts(self) -> None:
        """Adds the parts that a killed run left, in the order of their writing."""
        if not self._parts.exists():
            return
        stored = {
            (site, number)
            for site, rounds in self._federation.zoo.snapshot().rounds().items()
            for number in rounds
        }
        found = sorted(self._parts.glob("*.safetensors"), key=_age)
        known = {one[:2] for one in self.history.signature_ids}
        for path in found:
            part = _part(path)
            if part.signature_ids and part.signature_ids[0][:2] in stored - known:
                self.history.join(part)


def lock_history(federation: Federation) -> AbstractContextManager[None]:
    """The lock between reading the admission history, or the zoo, and writing the history."""
    return locked(federation.root / "rounds" / "screening.lock")


def _age(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def _part(path: Path) -> History:
    try:
        return from_bytes(path.read_bytes(), where=str(path))
    except (AdmissionError, OSError):
        # Torn by a loss of power, or joined meanwhile: it is measured from the zoo.
        return History()
