"""Ways in which tests let secrets out: a suite that tests of the plugin run.

What is named `test_passes…` or `test_skips…` ends so; all others fail.
"""

from __future__ import annotations

import asyncio
import base64
import faulthandler
import gc
import html
import json
import logging
import os
import pprint
import subprocess
import sys
import unittest
import urllib.parse
import warnings
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import httpx
import pytest

import pytest_botfarm
from pytest_botfarm import BotUser, BotUserFactory

logger = logging.getLogger("suite")


@pytest.fixture(scope="session")
def user(session_bot_user: BotUserFactory) -> BotUser:
    user = session_bot_user()
    assert isinstance(user.state, dict)
    user.save_state({**user.state, "later": Path("saved").read_text()})
    return user


@pytest.fixture
def everything(user: BotUser) -> dict[str, str]:
    return {
        "password": user.password,
        **user.secrets,
        "token": os.environ["BOTFARM_TOKEN"],
        "state": user.state["cookie"],
        "saved": user.state["later"],
    }


# Assertions


def test_equal(user: BotUser) -> None:
    assert user.password == "x"


def test_equal_but_for_the_end(everything: dict[str, str]) -> None:
    for text in everything.values():
        assert text == text[:-1] + "…"


def test_key_is_nearly_the_same(user: BotUser) -> None:
    assert user.secrets["key"] == user.secrets["key"][:-20] + "x" * 20


def test_several_lines(user: BotUser) -> None:
    assert user.secrets["pem"] == "one\ntwo\nthree"


def test_password_in_a_text(user: BotUser) -> None:
    assert user.password in "a text of another kind"


def test_password_not_in_a_text(user: BotUser) -> None:
    assert user.password not in f"before {user.password} after"


def test_call_with_arguments(user: BotUser) -> None:
    def login(name: str, password: str, key: str) -> bool:
        return False

    assert login(user.login, user.password, user.secrets["key"])


def test_truth_of_a_derived_value(everything: dict[str, str]) -> None:
    assert not list(everything.values())


def test_dictionary(user: BotUser) -> None:
    assert dict(user.secrets) == {"totp": "x"}


def test_list(everything: dict[str, str]) -> None:
    assert list(everything.values()) == ["x"]


def test_set(everything: dict[str, str]) -> None:
    assert set(everything.values()) <= {"x"}


@dataclass
class Credentials:
    login: str
    password: str = field(repr=False)
    more: dict[str, str] = field(default_factory=dict)


def test_dataclass(user: BotUser) -> None:
    mine = Credentials(user.login, user.password, dict(user.secrets))
    assert mine == Credentials(user.login, "x", {})


Pair = namedtuple("Pair", ["login", "password"])


def test_named_tuple(user: BotUser) -> None:
    assert Pair(user.login, user.password) == Pair("x", "y")


def test_user_and_user(user: BotUser) -> None:
    assert [user, user.secrets] == ["x", "y"]


def test_header(everything: dict[str, str]) -> None:
    for text in everything.values():
        for before in ("", "a", "ab"):
            print(base64.b64encode(f"{before}{text}:".encode("latin-1")))
            print(base64.encodebytes(f"{before * 40}{text}:".encode()).decode())
            pair = base64.b64encode(f"{before}{text}:".encode()).decode()
            print(pair, base64.urlsafe_b64encode(f"{before}{text}".encode()))
    assert f"Basic {pair}" == "Basic x"


def test_body(everything: dict[str, str]) -> None:
    body = json.dumps(everything)
    assert body == json.dumps({"body": body})


# Exceptions


def sign_in(login: str, password: str, /, **more: str) -> None:
    address = f"https://example.com/?password={urllib.parse.quote_plus(password)}"
    shown = f"{password}{address}"
    raise ValueError(f"cannot sign in as {login}" if shown else "")


def test_local_variables(user: BotUser, everything: dict[str, str]) -> None:
    password = user.password
    form = urllib.parse.urlencode(everything)
    octets = form.encode() + password.encode()
    sign_in(user.login, password, **user.secrets)
    assert octets


def test_message(everything: dict[str, str]) -> None:
    raise ValueError(everything)


def test_message_and_its_repr(everything: dict[str, str]) -> None:
    raise ValueError(repr(json.dumps(everything)) + repr(repr(everything)))


def test_message_of_octets(everything: dict[str, str]) -> None:
    raise ValueError([text.encode() for text in everything.values()])


def test_message_with_addresses(everything: dict[str, str]) -> None:
    spellings = [
        *(urllib.parse.quote(text) for text in everything.values()),
        *(urllib.parse.quote(text, safe="") for text in everything.values()),
        *(urllib.parse.quote(text, safe="!~*'()") for text in everything.values()),
        *(urllib.parse.quote_plus(text) for text in everything.values()),
        str(httpx.URL("https://example.com", params=everything)),
    ]
    raise ValueError("\n".join(spellings))


def test_message_with_a_page(everything: dict[str, str]) -> None:
    page = "".join(f'<input value="{html.escape(it)}">' for it in everything.values())
    raise ValueError(page)


def test_message_in_other_spellings(user: BotUser) -> None:
    spelled = Path("spelled").read_text()
    print(user.login, spelled)
    raise ValueError(spelled)


def test_chain(everything: dict[str, str]) -> None:
    try:
        sign_in("", everything["password"])
    except ValueError:
        try:
            raise KeyError(everything["key"])
        except KeyError as error:
            raise RuntimeError(everything["totp"]) from error


def test_notes_and_groups(everything: dict[str, str]) -> None:
    if sys.version_info >= (3, 11):
        error = ValueError("with a note")
        error.add_note(everything["pem"])
        errors = [error, KeyError(everything["password"])]
        raise ExceptionGroup(everything["key"], errors)  # noqa: F821  # not on 3.10
    raise ValueError(everything)


def test_command_that_fails(everything: dict[str, str]) -> None:
    texts = [text.replace("\n", " ") for text in everything.values()]
    command = [sys.executable, "-c", "import sys; sys.exit(str(sys.argv))", *texts]
    subprocess.run(command, check=True)


def test_environment(user: BotUser) -> None:
    environment = dict(os.environ)
    environment["ALICE_PASSWORD"] = user.password
    raise KeyError(environment)


def test_wrong_pattern(user: BotUser) -> None:
    with pytest.raises(ValueError, match="another text"):
        raise ValueError(user.password)


def test_slots_of_the_user(user: BotUser) -> None:
    inside = {name: getattr(user, name) for name in type(user).__slots__}
    raise ValueError(inside, getattr(user.secrets, "_values"))  # noqa: B009  # it is


def test_parts_of_the_client(bot_user: BotUserFactory) -> None:
    client = bot_user._session.client()
    raise ValueError(vars(client))


def test_error_of_the_server(bot_user: BotUserFactory) -> None:
    bot_user("no", "such pool")


def test_failure_without_a_traceback(everything: dict[str, str]) -> None:
    pytest.fail(str(everything), pytrace=False)


def test_skips(everything: dict[str, str]) -> None:
    pytest.skip(str(everything))


def test_skips_what_is_expected_to_fail(everything: dict[str, str]) -> None:
    pytest.xfail(str(everything))


class TestOfUnittest(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _take(self, everything: dict[str, str]) -> None:
        self.everything = everything

    def test_equality(self) -> None:
        self.assertEqual(self.everything["password"], "x")

    def test_equality_of_long_texts(self) -> None:
        key = self.everything["key"]
        self.assertEqual((key, 1), (key, 2))

    def test_equality_of_octets_over_several_lines(self) -> None:
        self.maxDiff = None
        self.assertEqual([self.everything["key"].encode()], [b"x"])

    def test_equality_of_dictionaries(self) -> None:
        self.assertEqual(self.everything, {})

    def test_inclusion(self) -> None:
        self.assertIn(self.everything["password"], "a text")


def test_of_subtests(
    everything: dict[str, str], request: pytest.FixtureRequest
) -> None:
    subtests = request.getfixturevalue("subtests")
    with subtests.test(everything["password"], **everything):
        print(everything)
        raise ValueError(everything)


# Output, logs and warnings


def test_passes_with_output(everything: dict[str, str]) -> None:
    print(everything)
    pprint.pprint(everything)
    print(everything["pem"], everything["password"], file=sys.stderr)
    os.write(1, everything["key"].encode())


def test_output(everything: dict[str, str]) -> None:
    test_passes_with_output(everything)
    raise ValueError


def test_logs(everything: dict[str, str]) -> None:
    logger.debug("%s", everything)
    logger.info("%r", everything["password"])
    logger.warning(everything["key"], extra={"password": everything["password"]})
    try:
        raise ValueError(everything["pem"])
    except ValueError:
        logger.exception(everything["totp"])
    raise ValueError


def test_passes_with_logs(everything: dict[str, str]) -> None:
    logger.error("%s", everything)


def test_requests(everything: dict[str, str]) -> None:
    url = os.environ["BOTFARM_URL"]
    form = {name: text for name, text in everything.items() if name != "pem"}
    headers = {"Authorization": f"Bearer {form['token']}"}
    with httpx.Client(headers=headers) as client:
        client.get(f"{url}/health", params=form)
        answer = client.post(f"{url}/api/v1/leases/renew", json=form)
    answer.raise_for_status()


def test_warnings(everything: dict[str, str]) -> None:
    for text in everything.values():
        warnings.warn(text, stacklevel=1)
    raise ValueError


def test_passes_with_a_resource_warning(
    user: BotUser, tmp_path: os.PathLike[str]
) -> None:
    name = urllib.parse.quote(user.password, safe="")
    logger.info(open(os.path.join(tmp_path, name), "w"))  # noqa: SIM115
    gc.collect()


def test_passes_with_a_thread_that_fails(user: BotUser) -> None:
    thread = Thread(target=test_fixture_that_is_the_password, args=(user.password,))
    thread.start()
    thread.join()


class Stubborn:
    def __init__(self, password: str) -> None:
        self.password = password

    def __del__(self) -> None:
        raise ValueError(self.password)


def test_passes_with_an_error_in_a_finalizer(user: BotUser) -> None:
    Stubborn(user.password)
    gc.collect()


def test_callback_of_an_event_loop(user: BotUser) -> None:
    async def call() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(sign_in, user.login, user.password)
        await asyncio.sleep(0)

    asyncio.run(call())
    raise ValueError


def test_passes_with_properties(
    everything: dict[str, str], record_property: pytest.FixtureRequest
) -> None:
    for name, text in everything.items():
        record_property(name, text)  # type: ignore[operator]


# Set-up and teardown


@pytest.fixture
def broken(everything: dict[str, str]) -> None:
    print(everything)
    raise ValueError(everything)


def test_broken_in_the_set_up(broken: None) -> None:
    pass


@pytest.fixture
def breaking(everything: dict[str, str]) -> Iterator[None]:
    yield
    logger.error("%s", everything)
    sign_in("", everything["password"], **everything)


def test_broken_in_the_teardown(breaking: None) -> None:
    pass


@pytest.fixture
def password(user: BotUser) -> str:
    return user.password


def test_fixture_that_is_the_password(password: str) -> None:
    assert not password


def test_passes_quarantine(bot_user: BotUserFactory) -> None:
    user = bot_user()
    user.quarantine(f"it does not take {user.password}")


def test_client_of_its_own() -> None:
    client = pytest_botfarm.BotfarmClient()
    raise ValueError(vars(client), client._client._headers)


def test_worker_that_dies(everything: dict[str, str]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        print(everything, flush=True)
        faulthandler.dump_traceback()
        os._exit(1)
    raise ValueError(everything)
