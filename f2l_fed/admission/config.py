"""Limits of the screening."""

from __future__ import annotations

from dataclasses import dataclass, replace

from f2l_fed.core.validation import positive, require

_SHARED_COPY = 0.01
"""Distance to another network, as `AdmissionConfig.copy`, where all start from the same one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionConfig:
    """Limits of the screening.

    Args:
        deviations: Distance from the median over sites, in robust standard deviations, above
            which a figure of an update is an outlier; of lengths, that of a site's median network.
        clip: The same for the length of any one update; a longer one is shortened to it.
        far: The same; an update this long goes to quarantine.
        minimum: Smallest number of sites to compare with; below it a submission is judged by
            itself alone.
        times: Multiple of the median length above which an update or a probe is an outlier where
            a few sites are known, but fewer than ``minimum``.
        floor: Smallest robust standard deviation of logarithms and cosines, and of lengths in
            medians, so that among nearly equal updates small differences don't become outliers.
        along: Cosine of an output layer with the site's own probe, or of its change with probe and
            start, as a share of the sites' median, below which an update goes to quarantine.
        against: The same cosine itself, where there are too few sites to compare with.
        copy: Distance to another network, as a share of the update's own length, below which it
            is a copy.
        alike: Cosine between the updates of two sites above which they are colluding.
        recall: Rounds of a site of which networks are remembered, to recognise copies.
        inputs: Synthetic inputs that a network is tried on.
        quota: Submissions of one site that may wait in quarantine; more of them are rejected.
        examples: Largest number of examples that a site may declare.
        loss: Largest loss that a site may declare; where outputs are at most 10,000, as those of
            an admitted network are on synthetic inputs, a mean loss is at most twice that.
    """

    deviations: float = 7.0
    clip: float = 12.0
    far: float = 24.0
    minimum: int = 8
    times: float = 10.0
    floor: float = 0.15
    along: float = 0.25
    against: float = -0.05
    copy: float = 0.1
    alike: float = 0.99
    recall: int = 4
    inputs: int = 32
    quota: int = 64
    examples: float = 1e9
    loss: float = 1e6

    def of_shared(self) -> AdmissionConfig:
        """The limits for changes of one network that all sites share.

        A site with few examples takes few steps and stays near the start, and so near others like
        it; one with many examples of one label goes its own way. Both are as honest as any, and
        their weight in the mean is bounded.
        """
        return replace(self, deviations=max(self.deviations, self.far), copy=_SHARED_COPY)

    def __post_init__(self) -> None:
        positive(self, "deviations", "clip", "far", "minimum", "floor", "copy", "inputs", "quota")
        positive(self, "recall", "examples", "loss")
        require(self.times > 1, self, "times", "> 1")
        require(self.copy < 1, self, "copy", "> 0 and < 1")
        require(0 <= self.along < 1, self, "along", ">= 0 and < 1")
        require(-1 <= self.against <= 0, self, "against", "from -1 to 0")
        require(0 < self.alike <= 1, self, "alike", "> 0 and at most 1")
