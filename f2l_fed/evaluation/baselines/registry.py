"""The baselines by key, in the order in which they are run and shown."""

from __future__ import annotations

from f2l_fed.evaluation.baselines.alone import ALONE
from f2l_fed.evaluation.baselines.fedavg import FEDAVG, FEDAVG_LOGISTIC
from f2l_fed.evaluation.baselines.fedper import FEDPER
from f2l_fed.evaluation.baselines.per_fedavg import PER_FEDAVG
from f2l_fed.evaluation.baselines.protonet import PROTONET

BASELINES = {
    baseline.key: baseline
    for baseline in (PROTONET, FEDAVG, FEDAVG_LOGISTIC, FEDPER, PER_FEDAVG, ALONE)
}
