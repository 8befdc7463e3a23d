"""The screening of one submission: every check in order of cost, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from f2l_fed.admission.checks import duplicates, message_format, outliers, values
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.features import SPREAD, extract_features
from f2l_fed.admission.history import History
from f2l_fed.admission.submission import Submission
from f2l_fed.admission.verdict import Finding, Verdict
from f2l_fed.admission.weight_sketch import WeightSketch
from f2l_fed.core.random_streams import generator_for
from f2l_fed.targets import Target
from f2l_fed.targets.synthetic_inputs import synthetic_inputs

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        # Shapes and declared numbers.
        "form": message_format.form,
        "numbers": message_format.numbers,
        "contradictions": message_format.contradictions,
        # One pass over the tensors.
        "finite": values.finite,
        "changed": values.changed,
        # A few passes, shared by all that follow.
        "norm": lambda case: outliers.norm(case.compared),
        "layers": lambda case: outliers.layers(case.compared),
        "probe": lambda case: outliers.probe(case.compared),
        "direction": lambda case: outliers.direction(case.compared),
        "copies": duplicates.copies,
        "alike": duplicates.alike,
        # A forward pass for each network.
        "function": values.function,
        "outputs": lambda case: outliers.outputs(case.behaved),
    }
)
"""Every check by name, the cheapest first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningResult:
    """What became of a submission.

    Args:
        verdict: The verdict.
        submission: As it may enter the zoo: shortened where the verdict says so.
        memory: What is remembered from now on.
    """

    verdict: Verdict
    submission: Submission
    memory: History


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """What is the same for all submissions of a lineage.

    Args:
        config: Limits.
        anatomy: Where the parts of a network lie.
        episodes: Number of probes that are asked for.
        logits: (D,) weights and (n, *input_shape) inputs to (n, K) logits.
        inputs: (n, *input_shape) float32, synthetic inputs.
    """

    config: AdmissionConfig
    anatomy: WeightSketch
    episodes: int
    logits: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor

    @classmethod
    def of(cls, target: Target, lineage: str, episodes: int, config: AdmissionConfig) -> Screen:
        """The screen of a lineage's networks.

        Args:
            target: What they are networks of.
            lineage: Seeds sketches and synthetic inputs.
            episodes: Number of probes of a site.
            config: Limits.
        """
        rng = generator_for(lineage, "screening")
        return cls(
            config=config,
            anatomy=WeightSketch.of(target, lineage),
            episodes=episodes,
            logits=target.logits,
            inputs=synthetic_inputs(target.input_shape, config.inputs, rng),
        )

    def judge(self, submission: Submission, memory: History, sites: int = 0) -> ScreeningResult:
        """Runs the checks until one rejects.

        Args:
            submission: What a site sent.
            memory: What was admitted before; an earlier submission of the same site and round
                counts as none, but that the site's vote is one of all.
            sites: How many are expected in the round; 0 if that is not known.
        """
        case = Evidence(
            submission=submission,
            memory=memory,
            config=self.config,
            anatomy=self.anatomy,
            episodes=self.episodes,
            logits=self.logits,
            inputs=self.inputs,
            sites=sites,
        )
        findings: list[Finding] = []
        for check in CHECKS.values():
            findings += check(case)
            if any(finding.action == "reject" for finding in findings):
                return ScreeningResult(
                    verdict=Verdict.of(findings), submission=submission, memory=memory
                )
        verdict = Verdict.of(findings)
        if verdict.action == "clip":
            # What is remembered is what is stored; the second look judges that like any other.
            submission = _shortened(submission, verdict)
            memory = memory.with_admitted(extract_features(submission, self.anatomy))
        elif verdict.admitted:
            memory = memory.with_admitted(case.measures, {SPREAD: case.spread})
        return ScreeningResult(verdict=verdict, submission=submission, memory=memory)


def _shortened(submission: Submission, verdict: Verdict) -> Submission:
    most = min(one.figures["most"] for one in verdict.findings if one.code == "long")
    lengths = submission.updates.norm(dim=1)
    share = (most / lengths.clamp(min=1e-12)).clamp(max=1)
    return submission.moved(share)
