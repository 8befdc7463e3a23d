"""The screening of one submission: every check in order of cost, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from torch import Tensor

from f2l_fed.admission.checks import duplicates, message_format, outliers, values
from f2l_fed.admission.config import AdmissionConfig
from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.features import SPREAD, Features, extract_features, row_factors
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
        "shapes": message_format.shapes,
        "declared_numbers": message_format.declared_numbers,
        "contradictions": message_format.contradictions,
        # One pass over the tensors.
        "finite": values.finite,
        "changed": values.changed,
        # A few passes, shared by all that follow.
        "update_length": lambda evidence: outliers.update_length(evidence.weight_comparisons),
        "layer_lengths": lambda evidence: outliers.layer_lengths(evidence.weight_comparisons),
        "probe_length": lambda evidence: outliers.probe_length(evidence.weight_comparisons),
        "direction": lambda evidence: outliers.direction(evidence.weight_comparisons),
        "copies": duplicates.copies,
        "collusion": duplicates.collusion,
        # A forward pass for each network.
        "outputs": values.outputs,
        "output_spread": lambda evidence: outliers.output_spread(evidence.output_comparisons),
    }
)
"""Every check by name, the cheapest first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScreeningResult:
    """The result of screening a submission.

    Args:
        verdict: The verdict.
        submission: The submission as it may enter the zoo: shortened where the verdict says so.
        before: The admission history that it was judged by.
        features: The features that the history is to have of it; None if it is not admitted.
        extra: More figures.
    """

    verdict: Verdict
    submission: Submission
    before: History
    features: Features | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def history(self) -> History:
        """The admission history from then on; that from before where nothing is admitted."""
        if self.features is None:
            return self.before
        history = self.before.copy()
        self.remember(history)
        return history

    @property
    def part(self) -> History:
        """The part that the submission adds to a history, as one of its own."""
        part = History()
        self.remember(part)
        return part

    def remember(self, history: History) -> None:
        """Takes the submission into a history if it is admitted."""
        if self.features is not None:
            history.admit(self.features, self.extra)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screen:
    """The screening of all submissions of a lineage.

    Args:
        config: Limits.
        sketch: Sketches weights.
        episodes: Number of probes that are asked for.
        logits: (D,) weights and (n, *input_shape) inputs to (n, K) logits.
        inputs: (n, *input_shape) float32, synthetic inputs.
    """

    config: AdmissionConfig
    sketch: WeightSketch
    episodes: int
    logits: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor

    @classmethod
    def of(cls, target: Target, lineage: str, episodes: int, config: AdmissionConfig) -> Screen:
        """The screen of a lineage's networks.

        Args:
            target: The target network.
            lineage: Seeds sketches and synthetic inputs.
            episodes: Number of probes of a site.
            config: Limits.
        """
        rng = generator_for(lineage, "screening")
        return cls(
            config=config,
            sketch=WeightSketch.of(target, lineage),
            episodes=episodes,
            logits=target.logits,
            inputs=synthetic_inputs(target.input_shape, config.inputs, rng),
        )

    def judge(
        self, submission: Submission, history: History, expected_sites: int = 0
    ) -> ScreeningResult:
        """Runs the checks until one rejects.

        Args:
            submission: The submission of a site.
            history: The admission history; an earlier submission of the same site and round is
                not compared with, although the site's figures stay in the statistics.
            expected_sites: Number of sites expected in the round; 0 if that is not known.
        """
        evidence = Evidence(
            submission=submission,
            history=history,
            config=self.config,
            sketch=self.sketch,
            episodes=self.episodes,
            logits=self.logits,
            inputs=self.inputs,
            expected_sites=expected_sites,
        )
        findings: list[Finding] = []
        for check in CHECKS.values():
            findings += check(evidence)
            if any(finding.action == "reject" for finding in findings):
                return ScreeningResult(
                    verdict=Verdict.of(findings), submission=submission, before=history
                )
        verdict = Verdict.of(findings)
        result = ScreeningResult(verdict=verdict, submission=submission, before=history)
        if verdict.action == "clip":
            # The history has the update as it is stored; the review judges that like any other.
            shorter = _shorten(submission, verdict, self.sketch)
            features = extract_features(shorter, self.sketch)
            return replace(result, submission=shorter, features=features)
        if verdict.admitted:
            spread = {SPREAD: evidence.spread}
            return replace(result, features=evidence.features, extra=spread)
        return result


def _shorten(submission: Submission, verdict: Verdict, sketch: WeightSketch) -> Submission:
    longest = min(one.figures["max_allowed"] for one in verdict.findings if one.code == "long")
    lengths = submission.updates.norm(dim=1) * row_factors(submission.weights, sketch)
    return submission.scaled((longest / lengths.clamp(min=1e-12)).clamp(max=1).float())
