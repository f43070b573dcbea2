"""Until when a test with a timeout waits."""

from __future__ import annotations

import pytest

from pytest_botfarm.client.clock import clock
from pytest_botfarm.limits import Limit


@pytest.mark.parametrize(
    ("timeout", "wait"), [(1, 0.5), (4, 2), (6, 4), (40, 38), (300, 285)]
)
def test_a_wait_leaves_time_to_give_up_and_to_tell_of_it(
    timeout: float, wait: float
) -> None:
    began = clock()
    would_end = Limit(timeout).ends - wait
    rounding = 1e-6
    assert began - rounding <= would_end <= clock() + rounding
