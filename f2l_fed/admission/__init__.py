"""What may enter the zoo: one bad record would reach every site's next start.

`Screen.judge` takes a submission and what is remembered of earlier ones and returns a `Verdict`:
accept, clip, quarantine or reject, with reasons and figures. `review_cohort` looks once more at all
admitted sites when an exchange is over. Both are pure; `f2l_fed.quarantine.quarantine` keeps what
was put aside. ::

    judged = screen.judge(submission, memory)
    if judged.verdict.admitted:
        zoo.append(new_records(judged.submission))
    elif judged.verdict.action == "quarantine":
        quarantine.put(new_records(submission), judged.verdict, lineage=..., time_s=...)
    memory = judged.memory
"""

from f2l_fed.admission.cohort_review import review_cohort
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.history import History
from f2l_fed.admission.history_file import load_history, save_history
from f2l_fed.admission.screening import CHECKS, Screen, ScreeningResult
from f2l_fed.admission.submission import KINDS, Submission
from f2l_fed.admission.verdict import REASONS, Finding, Verdict
from f2l_fed.admission.zoo_records import Admitted, admitted_in, followed, new_records, seeded

__all__ = [
    "CHECKS",
    "KINDS",
    "REASONS",
    "AdmissionConfig",
    "Admitted",
    "Finding",
    "History",
    "Screen",
    "ScreeningResult",
    "Submission",
    "Verdict",
    "admitted_in",
    "followed",
    "load_history",
    "new_records",
    "review_cohort",
    "save_history",
    "seeded",
]
