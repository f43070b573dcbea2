"""Pools that are smaller than the number of workers, and workers that are capped."""

from __future__ import annotations

import socket

import pytest

from pytest_botfarm import capping
from pytest_botfarm.client.models import Prospect, Want
from pytest_botfarm.foresight import Ask, demands_of, shortages

ANY = Want("stage", "regular")
TWO = Want("stage", "regular", count=2)
CANARY = Want("stage", "canary")
TESTS = [f"test_{number}" for number in range(9)]


def lines(workers: int, *known: tuple[list[Want], int, tuple[int, ...]]) -> list[str]:
    asks = [
        Ask(wants, is_marked=True, tests=TESTS[:tests]) for wants, tests, _ in known
    ]
    prospects = [Prospect(matching, None) for *_, matching in known]
    return list(shortages(demands_of(asks, prospects), workers))


def test_workers_that_will_wait_are_counted_over_all_tests_of_a_pool() -> None:
    told = "3 accounts in stage/regular for 8 workers: 5 of them will wait"
    assert lines(8, ([ANY], 9, (3,))) == [told]
    assert lines(8, ([ANY], 4, (3,)), ([TWO, CANARY], 4, (3, 8))) == [told]


def test_no_more_workers_want_a_pool_than_tests_do() -> None:
    told = "1 account in stage/canary for 2 workers: 1 of them will wait"
    assert lines(8, ([CANARY], 2, (1,)), ([ANY], 3, (3,))) == [told]


def test_a_test_that_wants_several_keeps_more_workers_waiting() -> None:
    told = "5 accounts in stage/regular, at least {} a test, for 4 workers: "
    assert lines(4, ([TWO], 9, (5,))) == [told.format(2) + "2 of them will wait"]
    assert lines(4, ([TWO, ANY], 9, (5, 5))) == [told.format(3) + "3 of them will wait"]


def test_a_pool_without_accounts_is_told_of_elsewhere() -> None:
    assert lines(4, ([ANY], 9, (0,))) == []


def test_a_server_that_is_not_there_caps_no_workers(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capping, "PATIENCE", 0.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        config = pytester.parseconfig("--botfarm-url", url, "--botfarm-cap-workers")
        workers, told = capping.capped(config, 4)
    assert workers == 4
    assert told is not None
    assert "is not capped: The Botfarm server at" in told
