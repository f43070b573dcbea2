"""--botfarm-report writes the timeline of a run, whatever becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

from support.farm import Farm
from support.suites import Suite


def rows(page: Path) -> list[list[str]]:
    """The cells of the leases: when, account, pool, test, worker, …"""
    _, _, table = page.read_text().partition('id="lease-table"')
    body = table.partition("</table>")[0]
    return [re.findall("<td>(.*?)</td>", row) for row in body.split("<tr")[2:]]


def test_all_leases_of_a_spread_run_are_told_also_lost_ones_and_those_of_a_crash(
    suite: Suite, farm: Farm, pool: str
) -> None:
    other = farm.add_pool("carol", "dave")
    suite.write(
        f"""
        import os

        import httpx
        import pytest

        def test_loses(bot_user):
            bot_user()
            token = {{"Authorization": "Bearer {farm.token}"}}
            with httpx.Client(base_url="{farm.url}/api/v1/", headers=token) as http:
                lease = next(
                    lease
                    for lease in http.get("leases").json()
                    if lease["wants"][0]["domain"] == "{pool}"
                )
                http.post(f"leases/{{lease['id']}}/break", json={{"reason": "demo"}})

        @pytest.mark.parametrize("text", ["<script>alert(1)</script>"])
        def test_quarantines(bot_user, text):
            bot_user("stage", "{other}").quarantine("a & b")

        def test_shares(session_bot_user):
            session_bot_user()

        @pytest.mark.bot_user("stage", "{other}")
        def test_crashes(bot_user):
            os._exit(1)
        """
    )
    result = suite.run("-n", "1", "--botfarm-report", "new/run.html")
    page = suite.pytester.path / "new" / "run.html"
    result.stdout.fnmatch_lines([f"-* botfarm report: {page.as_uri()} -*"])
    result.stdout.fnmatch_lines(
        [
            "4 leases, longest wait *, median *, 1 lost",
            *(f"  stage/{name}: 2 leases, *" for name in sorted((pool, other))),
        ]
    )
    told = [(row[3], row[4], row[7]) for row in rows(page)]
    assert told == [
        ("test_suite.py::test_loses", "gw0", "error, lease lost"),
        (
            "test_suite.py::test_quarantines[&lt;script&gt;alert(1)&lt;/script&gt;]",
            *("gw0", "passed"),
        ),
        ("session", "gw0", "crashed"),
        ("test_suite.py::test_crashes", "gw0", "crashed"),
    ]
    accounts = [row[1] for row in rows(page)]
    assert {accounts[1], accounts[3]} == {f"carol@{other}", f"dave@{other}"}
    assert "in quarantine: a &amp; b" in page.read_text()
    assert "password of" not in page.read_text()
    assert farm.token not in page.read_text()


def test_an_interrupted_run_has_its_page_too(suite: Suite, pool: str) -> None:
    suite.write(
        """
        import time

        def test_shares(session_bot_user, monkeypatch):
            monkeypatch.setattr(time, "time", lambda: 0.0)  # as tools do
            session_bot_user()

        def test_interrupts():
            raise KeyboardInterrupt
        """
    )
    suite.pytester.makeini("[pytest]\nbotfarm_report = run.html")
    result = suite.run()
    assert result.ret == 2
    page = suite.pytester.path / "run.html"
    assert "The run was interrupted." in page.read_text()
    (row,) = rows(page)
    assert row[3:5] == ["session", "main"]
    assert float(row[6]) < 60


def test_a_page_that_cannot_be_written_is_told_and_changes_nothing(
    suite: Suite, pool: str
) -> None:
    suite.write("def test_it(bot_user): bot_user()")
    result = suite.run("--botfarm-report", "test_suite.py/run.html")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["-* botfarm report not written: *test_suite.py* -*"])
