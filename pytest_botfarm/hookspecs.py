"""The hooks by which a suite has a say in what becomes of its accounts.

Define them in a `conftest.py` or a plugin; each may leave out arguments that it does
not use. They are called in the process that runs the test, and in the thread that
leases, which with `await bot_user.acquire(…)` is not that of the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .client.models import NewUser, Outcome, Want
    from .users import BotUser


@pytest.hookspec(firstresult=True)
def pytest_botfarm_password(user: BotUser) -> str | None:
    """Supply a password that the server does not hold.

    Called when `user.password` is first read, once for an account and its lease, where
    the server has no sealing key or stored the account without one. None leaves it to
    the next implementation, and in the end to PasswordNotHeldError. The server compares
    each answer with the hash that it has, once for a process and an account:
    WrongPasswordError, if it is of another password.
    """


@pytest.hookspec
def pytest_botfarm_clean(user: BotUser) -> None:
    """Clean an account whose last lease did not end with a clean release.

    Called before the test gets it, and only where `user.dirty` is true; afterwards it
    is false. If this raises, the account goes into quarantine with the error as the
    reason, all that was leased with it is given back, and the lease is asked for again
    within what is left of the wait.
    """


@pytest.hookspec(firstresult=True)
def pytest_botfarm_make_user(want: Want) -> NewUser | None:
    """Make one account for a want on the system under test, where the pool is short.

    Called where no account became free within a second, or where none exists, after a
    place was reserved at the server: in all runs together there are never more than
    `--botfarm-pool-limit`, without which this is not called. `want.count` is 1. The
    place is kept for ten minutes. None leaves it to the next implementation; if all
    return it, they are not asked for the same again by this process. An error is told
    in the test's report, frees the place, and lets this process make no account for
    half a minute or, when it happens again, longer.
    """


@pytest.hookspec
def pytest_botfarm_acquired(user: BotUser, nodeid: str) -> None:
    """Act on an account that has just been leased, and cleaned if need be.

    Called for each account of a lease before the test gets it. `nodeid` is of the test,
    or of the class, file, package or session that a wider fixture leases for. If this
    raises, the lease is given back, and the test ends with the error.
    """


@pytest.hookspec
def pytest_botfarm_releasing(user: BotUser, nodeid: str, outcome: Outcome) -> None:
    """Act on an account that is about to be given back, and is still held.

    Called once for each account of which `pytest_botfarm_acquired` was told, in the
    fixture's teardown, before the server hears of the release. `outcome` is "passed",
    "failed", "error", "skipped", or "unknown" where the test was interrupted. If this
    raises, the account is given back all the same, and the teardown ends with an error.
    A failed test's account that `--botfarm-keep-on-fail` keeps is told as well. A
    process that is killed does not come to call it.
    """
