from __future__ import annotations

import pytest

from f2l_fed.admission import History, Screen, Submission
from tests.support.submissions import SITES, remembered, small_screen, submission


@pytest.fixture(scope="module")
def screen() -> Screen:
    return small_screen()


@pytest.fixture(scope="module")
def history(screen: Screen) -> History:
    """After the first submissions of `SITES` sites."""
    return remembered(screen, SITES)


@pytest.fixture(scope="module")
def newcomer() -> Submission:
    """The first of another site."""
    return submission(SITES)
