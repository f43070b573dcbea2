"""What suites do without Botfarm: every test uses the same account.

`pytest --one-account` passes, `pytest -n 4 --one-account` shows why that does not last.
"""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class HardCodedAccount:
    login: str = "margaret@shop.example"
    password: str = "apollo-guidance"

    def __call__(self, env, domain, *, labels=None):
        if labels == {"role": "customer"}:
            pytest.skip("the one account is an admin's")
        return self

    @property
    def leased(self):
        pytest.skip("one account cannot be two people")


def pytest_addoption(parser):
    parser.addoption(
        "--one-account", action="store_true", help="use one account for all tests"
    )


@pytest.fixture
def bot_user(request):
    if request.config.getoption("--one-account"):
        return HardCodedAccount()
    return request.getfixturevalue("bot_user")  # Botfarm's own
