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


def lines(
    workers: int, *known: tuple[list[Want], int, tuple[int, ...]]
) -> list[tuple[str, str]]:
    asks = [
        Ask(wants, is_marked=True, tests=TESTS[:tests]) for wants, tests, _ in known
    ]
    prospects = [Prospect(matching, None) for *_, matching in known]
    found = shortages(demands_of(asks, prospects), workers)
    return [(it.foretold, it.told) for it in found]


def test_workers_that_will_wait_are_counted_over_all_tests_of_a_pool() -> None:
    told = (
        "3 accounts in stage/regular for 8 workers: 5 of them will wait",
        "stage/regular had 3 accounts for 8 workers: too few for 5 of them",
    )
    assert lines(8, ([ANY], 9, (3,))) == [told]
    assert lines(8, ([ANY], 4, (3,)), ([TWO, CANARY], 4, (3, 8))) == [told]


def test_no_more_workers_want_a_pool_than_tests_do() -> None:
    told = (
        "1 account in stage/canary for 2 workers: 1 of them will wait",
        "stage/canary had 1 account for 2 workers: too few for 1 of them",
    )
    assert lines(8, ([CANARY], 2, (1,)), ([ANY], 3, (3,))) == [told]


def test_a_test_that_wants_several_keeps_more_workers_waiting() -> None:
    before = "5 accounts in stage/regular, at least {0} a test, for 4 workers: {0} of "
    after = "stage/regular had 5 accounts, at least {0} a test, for 4 workers: too few "
    told = before + "them will wait", after + "for {0} of them"
    two, three = (tuple(text.format(number) for text in told) for number in (2, 3))
    assert lines(4, ([TWO], 9, (5,))) == [two]
    assert lines(4, ([TWO, ANY], 9, (5, 5))) == [three]


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
