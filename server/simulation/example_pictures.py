"""Pictures of one held-out site of each kind, with the answers of its generated network."""

from __future__ import annotations

from f2l_fed.data import Partition, SiteData
from f2l_fed.data.picture_address import picture_address
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, starts
from server.cluster.held_out import served_release
from server.federation.folder import Federation
from server.reporting.examples import ExampleSite, ShownClass, ShownPicture
from server.simulation.setup import held_out_sites

_CLASSES, _PICTURES = 8, 5
_SIDE = 64
"""Longer side of a picture, pixels."""


def example_pictures(federation: Federation, divided: Partition) -> dict[str, ExampleSite]:
    """The first held-out site of each kind, by kind; nothing where the data are no images.

    Args:
        federation: The federation, with a release.
        divided: Its data, from `server.simulation.setup.prepare`.
    """
    served = served_release(federation, federation.releases.measured().id)
    return {
        kind: _shown(served, divided.held_out[kind][0], sites[0])  # type: ignore[index]
        for kind, sites in held_out_sites(divided).items()
        if sites and divided.held_out[kind][0].own.x.ndim == 4  # type: ignore[index]
    }


def _shown(served: ServedRelease, data: SiteData, site: HeldOutSite) -> ExampleSite:
    x, y = site.test
    start = starts(served, site)[GENERATED]
    said = served.network_of(site).logits(start, x).argmax(1)

    def of(number: int) -> ShownClass:
        learnt = data.own.x[data.own.y == number][:_PICTURES]
        # What a site is measured on is in the order of its further examples.
        asked = [place for place, label in enumerate(y.tolist()) if label == number][:_PICTURES]
        return ShownClass(
            number=number,
            learnt=tuple(picture_address(one, _SIDE) for one in learnt),
            asked=tuple(
                ShownPicture(
                    address=picture_address(data.further.x[place], _SIDE), said=int(said[place])
                )
                for place in asked
            ),
        )

    return ExampleSite(
        name=data.name,
        classes=tuple(map(of, range(min(len(data.classes), _CLASSES)))),
        right=int((said == y).sum()),
        total=len(y),
    )
