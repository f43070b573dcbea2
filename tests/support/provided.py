"""What `python3 tasks.py` sets up for tests, beside the environment that runs them."""

from __future__ import annotations

import os

import pytest


def needs_set_up(what: str, *, is_there: bool) -> None:
    """Skip a test that lacks what it runs in; fail in CI, which has to set it up."""
    if is_there:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing in CI: run the tests by `python3 tasks.py ci`")
    pytest.skip(f"{what} is missing: `python3 tasks.py test` sets it up")
