"""The limits of the screening."""

from __future__ import annotations

import pytest

from f2l_fed.admission import AdmissionConfig
from f2l_fed.errors import ConfigError


@pytest.mark.parametrize("name", ["deviations", "minimum", "floor"])
def test_limits_are_positive(name):
    with pytest.raises(ConfigError, match=name):
        AdmissionConfig(**{name: 0})
