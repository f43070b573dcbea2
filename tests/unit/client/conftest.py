"""What tests of the client share."""

from __future__ import annotations

import pytest
from support.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
