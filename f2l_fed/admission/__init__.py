"""Admission: decides which updates enter the zoo, since one bad record reaches every later start.

`Screen.judge` takes a submission and the history of earlier ones and returns a `Verdict`: accept,
clip, quarantine or reject, with reasons and figures. `review_cohort` judges all admitted sites
once more at the end of an exchange. Both are pure; `f2l_fed.quarantine.quarantine` keeps the
submissions that are neither admitted nor rejected. ::

    judged = screen.judge(submission, history)
    if judged.verdict.admitted:
        zoo.append(new_records(judged.submission))
    elif judged.verdict.action == "quarantine":
        quarantine.put(new_records(submission), judged.verdict, lineage=..., time_s=...)
    history = judged.history
"""

from typing import TYPE_CHECKING

from f2l_fed.core.lazy_exports import lazy_exports

__all__ = [
    "CHECKS",
    "KINDS",
    "REASONS",
    "AdmissionConfig",
    "AdmittedRecords",
    "Finding",
    "History",
    "Screen",
    "ScreeningResult",
    "Submission",
    "Verdict",
    "extend_history",
    "load_history",
    "new_records",
    "read_admitted",
    "review_cohort",
    "save_history",
    "synchronise_history",
]

if TYPE_CHECKING:
    from f2l_fed.admission.cohort_review import review_cohort
    from f2l_fed.admission.config import AdmissionConfig
    from f2l_fed.admission.history import History
    from f2l_fed.admission.history_file import load_history, save_history
    from f2l_fed.admission.screening import CHECKS, Screen, ScreeningResult
    from f2l_fed.admission.submission import KINDS, Submission
    from f2l_fed.admission.verdict import REASONS, Finding, Verdict
    from f2l_fed.admission.zoo_records import (
        AdmittedRecords,
        extend_history,
        new_records,
        read_admitted,
        synchronise_history,
    )
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "f2l_fed.admission.cohort_review": ["review_cohort"],
            "f2l_fed.admission.config": ["AdmissionConfig"],
            "f2l_fed.admission.history": ["History"],
            "f2l_fed.admission.history_file": ["load_history", "save_history"],
            "f2l_fed.admission.screening": ["CHECKS", "Screen", "ScreeningResult"],
            "f2l_fed.admission.submission": ["KINDS", "Submission"],
            "f2l_fed.admission.verdict": ["REASONS", "Finding", "Verdict"],
            "f2l_fed.admission.zoo_records": [
                "AdmittedRecords",
                "extend_history",
                "new_records",
                "read_admitted",
                "synchronise_history",
            ],
        },
    )
