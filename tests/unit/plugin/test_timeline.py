"""The page of --botfarm-report, of leases that are made up."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser

import pytest

from pytest_botfarm.report import LeaseFigures
from pytest_botfarm.timeline import page_of

BEGAN = 1_800_000_000.0


def lease(number: int = 0, **more: object) -> LeaseFigures:
    """Waited for 1 s and held for 2 s, each beginning a second after the other."""
    figures = {
        "id": f"lease-{number}",
        "test": f"tests/test_shop.py::TestIt::test_number[{number}]",
        "worker": "gw0",
        "pools": ["stage/regular"],
        "users": [("alice", "stage/regular")],
        "asked": BEGAN + number,
        "answered": BEGAN + number + 1,
        "ended": BEGAN + number + 3,
        "lost": None,
        "kept": None,
        "waited": 1.0,
        "outcome": "passed",
        "quarantined": {},
    }
    return {**figures, **more}  # type: ignore[typeddict-item]


def page(*leases: LeaseFigures, name: str = "shop", interrupted: bool = False) -> str:
    return page_of(leases, name=name, ended=BEGAN + 10, interrupted=interrupted)


class Reader(HTMLParser):
    """What a browser makes of a page: its elements, and the tables' cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str | None, list[list[str]]] = {}
        self.texts: list[str] = []
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables[dict(attrs)["id"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._in_cell:
            self._rows[-1][-1] += data


def test_the_tables_have_every_lease_and_how_much_each_account_was_in_use() -> None:
    both = [("alice", "stage/regular"), ("bob", "stage/canary")]
    tables = Reader(page(lease(0), lease(3, users=both, outcome="failed"))).tables

    rows = tables["lease-table"][1:]
    assert [row[1] for row in rows] == ["alice", "alice", "bob"]
    assert rows[2] == [
        *("3.00", "bob", "stage/canary", "tests/test_shop.py::TestIt::test_number[3]"),
        *("gw0", "1.00", "2.00", "failed", "lease-3"),
    ]
    # Six seconds from the first wish to the last release.
    assert tables["account-table"][1:] == [
        ["bob", "stage/canary", "1", "2.00", "33%", "1.00", "1.00", ""],
        ["alice", "stage/regular", "2", "4.00", "67%", "2.00", "1.00", ""],
    ]


def test_an_account_that_is_kept_is_not_free_once_its_test_has_ended() -> None:
    kept = lease(0, outcome="failed", kept=BEGAN + 1_800)
    text = page(kept, lease(4, users=[("bob", "stage/regular")]))
    tables = Reader(text).tables

    until = r"kept until (\d{4}-\d\d-\d\d )?\d\d:\d\d \S+"
    assert re.fullmatch(f"failed, {until}", tables["lease-table"][1][7])
    assert re.fullmatch(until, tables["account-table"][1][-1])
    # The chart has it until the run ends.
    assert 'data-at="0.000 1.000 3.000  7.000"' in text
    assert "<dt>kept</dt><dd>1</dd>" in text


def test_what_went_wrong_stands_out() -> None:
    text = page(
        lease(0, lost=BEGAN + 2, outcome="error"),
        lease(1, users=[], outcome="error"),
        lease(2, quarantined={"alice": "locked out"}),
        lease(3, ended=None, outcome="unknown"),
        interrupted=True,
    )
    tables = Reader(text).tables

    assert [row[6:8] for row in tables["lease-table"][1:]] == [
        ["1.00", "error, lease lost"],
        ["0.00", "not leased"],
        ["2.00", "passed"],
        ["6.00", "unknown"],  # held until the run ended
    ]
    assert tables["account-table"][1][-1] == "lost 1 ×; in quarantine: locked out"
    for figure in ("<dt>lost</dt><dd>1", "<dt>not leased</dt><dd>1"):
        assert f'<div class="bad">{figure}</dd></div>' in text
    assert "The run was interrupted." in text


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "\"' onmouseover='alert(1)",
        "</td></table></script><b>",
        "<!-- slot: leases --> &amp; \\g<0> \\1",
    ],
)
def test_what_a_suite_or_an_account_is_called_is_text(text: str) -> None:
    harmless = Reader(page(lease(quarantined={"alice": "no"}), name="no"))
    named = lease(
        test=text,
        worker=text,
        users=[(text, text)],
        pools=[text],
        quarantined={text: text},
    )
    reader = Reader(page(named, name=text))

    assert reader.elements == harmless.elements
    row = reader.tables["lease-table"][1]
    assert [row[1], row[2], row[3], row[4]] == [text] * 4
    assert reader.tables["account-table"][1][-1] == f"in quarantine: {text}"
    assert f"Botfarm: {text}" in reader.texts


def test_the_browser_runs_the_pages_own_script_alone_and_fetches_nothing() -> None:
    text = page(lease())
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in text
    )
    assert not re.search(r"https?:|url\(|\bsrc=|@import|<link", text)


def test_a_run_without_leases_and_a_large_one_are_pages_too() -> None:
    assert "No test asked for an account" in page()
    text = page(
        *(
            lease(number, users=[(f"user{number % 60}@example.com", "stage/regular")])
            for number in range(5_000)
        )
    )
    assert len(Reader(text).tables["lease-table"]) == 5_001
    assert len(text) < 2_000_000
