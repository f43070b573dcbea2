"""From marks and calls to what is asked of the server."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from uuid import uuid4

import pytest
from support.accounts import PROJECT, account

from pytest_botfarm.client.models import Want
from pytest_botfarm.settings import Settings
from pytest_botfarm.wants import make_wish, wish_of_call, wishes_of_marks

NO_WAITS = ("nan", "inf", "-inf")


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        (pytest.mark.bot_user(count=0), "count must be a whole number .* not 0"),
        (pytest.mark.bot_user(count=101), "count must be .* not 101"),
        (pytest.mark.bot_user(count=True), "count must be .* not True"),
        (pytest.mark.bot_user(count="2"), "count must be .* not '2'"),
        (pytest.mark.bot_user(labels="admin"), "labels must map names to text"),
        (pytest.mark.bot_user(labels={"level": 3}), "labels must map names to text"),
        (pytest.mark.bot_user(project_id="x"), "project_id must be a UUID, not 'x'"),
        (pytest.mark.bot_user(project_id=7), "project_id must be a UUID, not 7"),
        (pytest.mark.bot_user(env=7), "env must be a name, not 7"),
        (pytest.mark.bot_user("stage", ""), "domain must be a name, not ''"),
        (pytest.mark.bot_user(project="x"), "unexpected keyword argument 'project'"),
        (pytest.mark.bot_user("a", "b", "c"), "too many positional arguments"),
    ],
)
def test_a_malformed_mark_names_test_and_parameter(
    mark: pytest.MarkDecorator, complaint: str
) -> None:
    with pytest.raises(
        pytest.UsageError, match=rf"of test_a\.py::test_it.*{complaint}"
    ):
        wishes_of_marks("test_a.py::test_it", [mark.mark])


@pytest.mark.parametrize("wait", [-1, 86_401, True, "5", [], *map(float, NO_WAITS)])
def test_a_call_that_waits_for_no_time_that_can_be_names_test_and_argument(
    wait: object,
) -> None:
    with pytest.raises(
        pytest.UsageError,
        match=r"in test_a\.py::test_it is wrong: wait must be a number .* not ",
    ):
        wish_of_call("test_a.py::test_it", wait=wait)


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ({"count": 2}, r"leases one account.*@pytest\.mark\.bot_user\(.* count=2\)"),
        ({"label": {}}, "argument 'label'. It reads bot_user.*labels=None, wait=None"),
    ],
)
def test_a_call_with_an_argument_that_it_has_not_says_what_to_write(
    argument: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(
        pytest.UsageError, match=rf"in test_a\.py::test_it is wrong: .*{complaint}"
    ):
        wish_of_call("test_a.py::test_it", "stage", "regular", **argument)


def test_a_want_of_several_accounts_is_written_as_the_server_writes_it() -> None:
    assert str(Want("stage", "regular")) == "stage/regular"
    assert str(Want("stage", "regular", count=5)) == "5 × stage/regular"


@pytest.mark.parametrize(("wait", "seconds"), [(None, None), (0, 0.0), (2.5, 2.5)])
def test_a_call_says_how_long_it_waits(
    wait: float | None, seconds: float | None
) -> None:
    assert wish_of_call("test_a.py::test_it", "stage", wait=wait) == (
        make_wish("stage"),
        seconds,
    )


def test_the_wishes_stand_in_the_order_in_which_the_marks_are_written() -> None:
    nearest_first = [
        pytest.mark.bot_user("stage", "regular").mark,
        pytest.mark.bot_user("prod", "canary", count=2).mark,
    ]
    wishes = wishes_of_marks("test_a.py::test_it", nearest_first)
    assert [wish.want() for wish in wishes] == [
        Want("prod", "canary", count=2),
        Want("stage", "regular"),
    ]


@pytest.mark.parametrize(
    ("wish", "met"),
    [
        (make_wish(), True),
        (make_wish("stage", "regular"), True),
        (make_wish("prod"), False),
        (make_wish(domain="canary"), False),
        (make_wish(labels={"role": "admin"}), True),
        (make_wish(labels={"role": "guest"}), False),
        (make_wish(project_id=str(PROJECT)), True),
        (make_wish(project_id=uuid4()), False),
    ],
)
def test_what_a_wish_leaves_open_any_user_meets(wish: Any, met: bool) -> None:
    assert wish.is_met_by(account()) is met


def test_options_stand_in_for_what_is_left_out() -> None:
    settings = Settings(None, None, "stage", "regular", 300, 60)
    assert make_wish(domain="canary").with_defaults(settings).want() == Want(
        "stage", "canary"
    )


def test_a_want_without_env_or_domain_says_where_to_name_it() -> None:
    with pytest.raises(pytest.UsageError, match="--botfarm-env or BOTFARM_ENV"):
        make_wish().want()
    with pytest.raises(pytest.UsageError, match="--botfarm-domain or BOTFARM_DOMAIN"):
        make_wish("stage").want()


def test_an_account_shows_no_secret_and_gives_it_when_asked() -> None:
    alice = account()
    assert alice.password == "correct horse"
    assert alice.secrets["totp"] == "seed of alice"
    assert repr(alice) == "BotUser('alice@example.com', 'stage', 'regular')"
    assert repr(alice.secrets) == "Secrets(totp=***)"
    assert len(alice.secrets) == 1
    assert alice != account()
    assert alice.secrets != account().secrets


def test_an_account_is_neither_copied_nor_pickled() -> None:
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Pass on its login and password"):
            duplicate(account())


def test_a_password_that_the_server_does_not_hold_says_what_to_set_there() -> None:
    from pytest_botfarm import PasswordNotHeldError  # noqa: PLC0415  # loads lazily

    with pytest.raises(PasswordNotHeldError, match="BOTFARM_SECRET_KEYS on the server"):
        _ = account(password=None).password
