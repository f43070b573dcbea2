"""What reports of other tools tell of accounts: each file that a run writes is read."""

from __future__ import annotations

import html
import json
import re

from support.beside import Beside

SHOP = """
    import pytest

    @pytest.mark.parametrize("article", ["book", "lamp"])
    def test_order(bot_user, article):
        user = bot_user()
        print("signs in with", user.password)

    @pytest.mark.bot_user(count=2)
    def test_chat(bot_user):
        assert bot_user.leased[0].password == "guessed"
    """


def test_pytest_html_has_the_section_of_each_test_that_had_an_account(
    suite: Beside,
) -> None:
    suite.write(SHOP)
    arguments = ("--html=report.html", "--self-contained-html")
    result = suite.run("-p", "metadata", "-p", "html", *arguments)
    result.assert_outcomes(passed=2, failed=1)
    page = (suite.pytester.path / "report.html").read_text()
    blob = re.search(r'data-jsonblob="(.*?)"', page)
    assert blob
    tests = json.loads(html.unescape(blob[1]))["tests"]
    logs = {name: html.unescape(it["log"]) for name, (it,) in tests.items()}
    assert len(logs) == 3
    leases = {lease["id"]: lease["users"] for lease in suite.leases()}
    told: dict[str, set[str]] = {}
    for name, log in logs.items():
        assert re.search(r"-+ botfarm -+", log), name
        for login, lease in re.findall(r"(\S+) \(stage/\w+\): lease ([\w-]+)", log):
            told.setdefault(lease, set()).add(login)
    assert told == {
        lease: {user["login"] for user in users} for lease, users in leases.items()
    }
    assert "password of" not in page
    assert "signs in with ***" in logs["test_suite.py::test_order[lamp]"]
    assert "AssertionError: assert '***'" in logs["test_suite.py::test_chat"]


def test_allure_has_the_accounts_as_a_parameter_that_no_history_depends_on(
    suite: Beside,
) -> None:
    suite.write(
        SHOP
        + """
    attempts = []

    def test_flaky(bot_user):
        attempts.append(bot_user())
        if len(attempts) == 1:
            attempts[0].quarantine("locked out")
            pytest.fail("locked out")
        assert attempts[0].login != attempts[1].login
    """
    )
    arguments = ("--alluredir=allure", "--reruns=1", "--only-rerun=locked out")
    result = suite.run("-p", "allure_pytest", "-p", "rerunfailures", *arguments)
    result.assert_outcomes(passed=3, failed=1)
    files = {it.name: it.read_text() for it in suite.pytester.path.glob("allure/*")}
    assert not [name for name, text in files.items() if "password of" in text]
    assert "signs in with ***\n" in files.values()
    told = set()
    histories = set()
    for text in (text for name, text in files.items() if "-result" in name):
        test = json.loads(text)
        (account,) = [it for it in test["parameters"] if it["name"] == "account"]
        assert account["excluded"] is True
        told.add((test["name"], account["value"]))
        histories.add(test["historyId"])
    assert len(histories) == 4
    assert len(told) == 5
    assert {text for name, text in told if name == "test_flaky"} == {
        f"'{login}@{suite.pool}'" for login in ("alice", "bob")
    }
