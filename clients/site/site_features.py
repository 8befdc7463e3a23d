"""A site's examples as features of its frozen backbone, made once and kept in its state folder."""

from __future__ import annotations

import logging
from dataclasses import replace

from clients.site.site import Site
from clients.site.site_examples import Examples
from clients.site.site_folder import SiteFolder
from f2l_fed.core.device import device_of
from f2l_fed.core.wording import number_of
from f2l_fed.errors import DataError, TargetError
from f2l_fed.targets.backbone import InstalledBackbone, Progress
from f2l_fed.targets.feature_cache import cached_features
from f2l_fed.targets.frozen_part import FrozenPart

_LOG = logging.getLogger("f2l_fed.site")


def on_features(
    site: Site, frozen: FrozenPart | None, progress: Progress | None = None
) -> tuple[Site, FrozenPart | None]:
    """The site with its backbone's results as inputs, and that frozen part as it is installed.

    Both are as they are where none is asked for.

    Args:
        site: The site, whose state folder exists.
        frozen: The backbone that is asked for.
        progress: Told while features are made; they are logged if None.

    Raises:
        TargetError: If the site has another backbone or none, or its code does not suit the file;
            without one, if its inputs are texts.
        DataError: If the backbone's file can't be read, or the examples are none of its inputs.
        ConfigError: If the site is to compute on a GPU, and there is none.
    """
    if frozen is None:
        if site.encoding.text_bytes:
            raise TargetError(
                "the site's inputs are texts, and the federation adapts no backbone",
                where="[data] text",
                remedy="Leave it out, or take part in a federation whose backbone takes texts.",
            )
        return site, None
    backbone = installed_backbone(site)
    backbone.require(frozen)
    parts = (site.train.x, site.validation.x)
    device = device_of(site.config.device)
    told = progress or _logged
    train, validation = cached_features(site.state, backbone, parts, told, device=device)
    on_results = replace(
        site,
        train=Examples(x=train, y=site.train.y),
        validation=Examples(x=validation, y=site.validation.y),
    )
    return on_results, backbone.installed


def installed_backbone(site: Site) -> InstalledBackbone:
    """The backbone of a site, which must suit its examples.

    Raises:
        TargetError: If none is named.
        DataError: If its file can't be read, or the examples are none of its inputs.
    """
    if site.encoding.text_bytes and not site.config.backbone.file:
        raise TargetError(
            "the site's inputs are texts, which only a backbone takes, and none is named",
            where="[backbone] file",
            remedy="Install the federation's, of texts, and name it there; or leave text out under "
            "[data].",
        )
    backbone = InstalledBackbone.of(site.config.backbone, site.path)
    backbone.require_inputs(texts=bool(site.encoding.text_bytes), where="[data] text")
    site.require_fit(backbone.facts.input_shape, site.classes)
    if site.encoding.channels:
        raise DataError(
            "the backbone scales the channels of images itself",
            where="[data] image_scale",
            expected='""',
            got="standard",
        )
    own = site.config.data.scales
    scaled = [
        column.name
        for column in site.encoding.columns
        if (column.mean, column.spread) != (0.0, 1.0) and column.name not in own
    ]
    if scaled:
        raise DataError(
            "all sites have one backbone, and these numbers are scaled by the site's own",
            where="[data] scale",
            expected='"", or the scales that all sites have agreed on ([data.scales])',
            got=f"{number_of(len(scaled), 'column')}, such as {scaled[0]!r}",
        )
    return backbone


def backbone_of(folder: SiteFolder, frozen: FrozenPart | None) -> InstalledBackbone | None:
    """The backbone of a site, which must be the one that is asked for; None where none is.

    Raises:
        TargetError, DataError: As `on_features`.
    """
    if frozen is None:
        return None
    backbone = InstalledBackbone.of(folder.config.backbone, folder.path)
    backbone.require(frozen)
    return backbone


def _logged(done: int, total: int) -> None:
    _LOG.info("features of %d of %d examples are made", done, total)
