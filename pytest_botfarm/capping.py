"""At most as many workers of pytest-xdist as there are accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client.errors import BotfarmError
from .configured import session_of
from .foresight import NO_RUNS, PATIENCE, counted

if TYPE_CHECKING:
    from .client.models import PoolSize
    from .settings import Settings


NO_TESTS = ("collectonly", "help", "version", *NO_RUNS)
"""Options of pytest with which no test runs, so that workers will not matter."""


def capped(config: pytest.Config, workers: int) -> tuple[int, str | None]:
    """How many workers there should be, and what the header should say of it.

    The accounts are those of the default env and domain, where these are set. Raises
    pytest.UsageError where the settings are wrong.
    """
    leases = session_of(config)
    settings = leases.settings
    no_test_runs = any(config.getoption(name, None) for name in NO_TESTS)
    if no_test_runs or not settings.cap_workers:
        return workers, None
    try:
        # pytest is not configured yet, and does not unconfigure if it never will be.
        config.add_cleanup(leases.close)
        pools = leases.aside(lambda protocol: protocol.pools(patience=PATIENCE))
    except BotfarmError as error:
        leases.notes.append(f"the number of workers was not capped: {error}")
        return workers, f"botfarm: the number of workers is not capped: {error}"
    accounts = sum(pool.users for pool in pools if _is_meant(pool, settings))
    if accounts >= workers:
        return workers, None
    cap = max(1, accounts)
    found = f"{counted(accounts, 'account')} for {workers} workers"
    return cap, f"botfarm: {found}, so {counted(cap, 'worker')} will do"


def _is_meant(pool: PoolSize, settings: Settings) -> bool:
    return settings.env in {None, pool.env} and settings.domain in {None, pool.domain}
