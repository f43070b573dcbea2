"""The account in a test's hands."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from support.accounts import account

from pytest_botfarm import BotUser
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


def test_a_function_that_fits_the_other_kind_of_login_is_told_which_to_use() -> None:
    async def sign_in(_: BotUser, token: str) -> str:
        return token

    user: Any = account()
    with pytest.raises(TypeError, match=r"sign_in is a .*: await login_once_async"):
        user.login_once(sign_in)
    with pytest.raises(TypeError, match="is a coroutine function"):
        user.login_once(partial(sign_in, token="a"))
    with pytest.raises(TypeError, match="dict and nothing to await: call login_once"):
        asyncio.run(user.login_once_async(lambda _: {}))
