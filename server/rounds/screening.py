"""Admission in a run: what it remembers, from the zoo and back to the folder.

The zoo decides what was admitted; the memory only follows it. It is written at the end of every
exchange, and until then each admitted submission leaves its part of it in the spool, so that a run
that was killed judges the rest as it would have. What neither knows (a submission that was
released from quarantine, a file that is gone) is measured from the zoo, and what the zoo has lost
by an erasure is forgotten.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

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
from f2l_fed.local_training.probe import anchor
from server.federation.folder import Federation
from server.rounds.run_cache import digest_of, write_part


class Screening:
    """The memory of one run.

    Args:
        federation: The folder.
        parts: Folder for what was admitted since the memory was last written.

    ``sites`` is how many are expected in the present round.
    """

    def __init__(self, federation: Federation, parts: Path) -> None:
        config = federation.config
        self._federation, self._parts, self.sites = federation, parts, 0
        self._anchor = anchor(federation.target, config.lineage)
        self._screen = Screen.of(
            federation.target, config.lineage, config.probe.episodes, config.admission
        )
        self.memory = load_history(federation.screening)
        self._rejoin()
        self.follow_zoo()

    def judge(self, submission: Submission) -> ScreeningResult:
        """Screens a submission; it is not remembered yet."""
        return self._screen.judge(submission, self.memory, self.sites)

    def holds(self, submission: Submission) -> bool:
        """Whether one of the same site and round is in the zoo."""
        return self.memory.networks_of(submission.id) > 0

    def keep_part(self, judged: ScreeningResult) -> None:
        """To be called before what was judged enters the zoo."""
        origin = judged.submission.id
        path = self._parts / f"{digest_of(origin.site)}-{origin.round}.safetensors"
        write_part(path, to_bytes(judged.history.part(origin)))

    def follow_zoo(self) -> None:
        """Learns what the zoo has got from elsewhere, and forgets what it has lost."""
        self.memory = synchronise_history(
            self.memory,
            self._federation.zoo.snapshot(),
            self._screen.sketch,
            self._anchor,
            self._screen.config.recall,
        )

    def review(self) -> None:
        """The second look, at the end of an exchange; the memory is durable on return.

        At answers of first rounds too that came late, in one of the others.
        """
        with _alone(self._federation):
            self.follow_zoo()
            for kind in KINDS:
                self.memory, _ = review_cohort(self.memory, kind, self._screen.config)
            self.memory = self.memory.of_last_rounds(self._screen.config.recall)
            save_history(self._federation.screening, self.memory)
        for path in self._parts.glob("*"):
            path.unlink(missing_ok=True)

    def _rejoin(self) -> None:
        """Takes up the parts that a run left whose process died, in the order of their coming."""
        if not self._parts.exists():
            return
        stored = {
            (site, number)
            for site, rounds in self._federation.zoo.snapshot().rounds().items()
            for number in rounds
        }
        found = sorted(self._parts.glob("*.safetensors"), key=_age)
        known = {owner[:2] for owner in self.memory.signature_ids}
        for path in found:
            part = _part(path)
            if part.signature_ids and part.signature_ids[0][:2] in stored - known:
                self.memory = self.memory.joined(part)


def _alone(federation: Federation) -> AbstractContextManager[None]:
    """Held from reading the memory, or what it follows, to writing it."""
    return locked(federation.root / "rounds" / "screening.lock")


def _age(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def _part(path: Path) -> History:
    try:
        return from_bytes(path.read_bytes(), where=str(path))
    except (AdmissionError, OSError):
        # Torn by a loss of power, or taken up meanwhile: it is measured from the zoo.
        return History()
