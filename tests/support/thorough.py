"""How far tests of properties look: the same examples each time, unless told more."""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = int(os.environ.get("BOTFARM_EXAMPLES_TIMES", "0"))
"""So many times the examples, and other ones with every run; 0 is for every day."""


def thoroughly(*, examples: int, steps: int = 50) -> settings:
    return settings(
        max_examples=examples * max(TIMES, 1),
        stateful_step_count=steps,
        derandomize=not TIMES,
        database=None,
        deadline=None,  # machines are slow at times
    )
