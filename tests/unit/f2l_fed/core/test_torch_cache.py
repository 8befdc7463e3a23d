"""torch's cache lies in a folder of this account."""

from __future__ import annotations

from pathlib import Path

import pytest

from f2l_fed.core.torch_cache import choose_torch_cache


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"HOME": "{root}"}, "{root}/.cache/f2l-fed/torch"),
        ({"HOME": "{root}", "XDG_CACHE_HOME": "{root}/c"}, "{root}/c/f2l-fed/torch"),
        ({"HOME": "{root}", "FLWR_HOME": "{root}/flower"}, "{root}/flower/torch"),
        ({"HOME": "{root}", "FLWR_HOME": "{root}/file"}, "{root}/.cache/f2l-fed/torch"),
        ({"HOME": "{root}", "TORCHINDUCTOR_CACHE_DIR": "/mine"}, "/mine"),
        ({"HOME": "{root}/file"}, None),
        ({"HOME": "relative"}, None),
        ({}, None),
    ],
)
def test_the_first_folder_that_can_be_written_is_taken_and_none_is_made(
    tmp_path: Path, environment: dict[str, str], place: str | None
):
    (tmp_path / "file").touch()
    given = {name: value.format(root=tmp_path) for name, value in environment.items()}
    choose_torch_cache(given)
    expected = place.format(root=tmp_path) if place else None
    assert given.get("TORCHINDUCTOR_CACHE_DIR") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
