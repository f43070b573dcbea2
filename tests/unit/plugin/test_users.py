"""The account in a test's hands."""

from __future__ import annotations

import pytest
from support.accounts import account

from pytest_botfarm.client.errors import PasswordNotHeldError


def test_a_password_that_the_server_does_not_hold_can_be_supplied() -> None:
    user = account(password=None)
    with pytest.raises(PasswordNotHeldError, match="pytest_botfarm_password"):
        _ = user.password
    user.supply_password_by(lambda asked: f"password of {asked.login}")
    assert user.password == "password of alice@example.com"
    held = account()
    held.supply_password_by(lambda _: pytest.fail("the server has it"))
    assert held.password == "correct horse"
