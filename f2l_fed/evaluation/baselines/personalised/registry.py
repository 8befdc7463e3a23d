"""The baselines for shared labels by key, in the order in which they are run and shown."""

from __future__ import annotations

from f2l_fed.evaluation.baselines.personalised.ditto import DITTO
from f2l_fed.evaluation.baselines.personalised.fedala import FEDALA
from f2l_fed.evaluation.baselines.personalised.fedavg import (
    ACCELERATED_FEDAVG,
    PLAIN_FEDAVG,
    TUNED_FEDAVG,
)
from f2l_fed.evaluation.baselines.personalised.fedper import PERSONAL_FEDPER
from f2l_fed.evaluation.baselines.personalised.fedrep import FEDREP
from f2l_fed.evaluation.baselines.personalised.local_only import LOCAL_ONLY
from f2l_fed.evaluation.baselines.personalised.pfedhn import PFEDHN

PERSONALISED_BASELINES = {
    baseline.key: baseline
    for baseline in (
        LOCAL_ONLY,
        PLAIN_FEDAVG,
        TUNED_FEDAVG,
        ACCELERATED_FEDAVG,
        PERSONAL_FEDPER,
        FEDREP,
        DITTO,
        FEDALA,
        PFEDHN,
    )
}
