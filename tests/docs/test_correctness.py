"""What the pages on correctness, crashes and security name is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "correctness.md").read_text()
CRASHES = (ROOT / "docs" / "crashes.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE + CRASHES + SECURITY)
TESTS = sorted(set(NAMED))
CODE = sorted(set(re.findall(r"`([\w/]+/\w+\.py)(?:: (\w+))?`", PAGE)))
PROMISES = 6


@cache
def defined_in(path: Path) -> set[str]:
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_each_test_that_is_named_exists(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in defined_in(ROOT / file)


@pytest.mark.parametrize(("file", "name"), CODE)
def test_each_function_that_is_named_exists(file: str, name: str) -> None:
    own = ROOT if file.startswith(("tests/", "pytest_botfarm/")) else None
    path = (own or ROOT / "botfarm_server") / file
    assert path.exists()
    assert not name or name in defined_in(path)


@pytest.mark.parametrize("number", range(1, PROMISES + 1))
def test_each_promise_names_tests(number: int) -> None:
    rows = [row for row in PAGE.splitlines() if row.startswith(f"| {number}. ")]
    assert rows
    assert all("::test_" in row for row in rows)


@pytest.mark.parametrize("page", [CRASHES, SECURITY], ids=["crashes", "security"])
def test_each_crash_and_each_threat_names_tests(page: str) -> None:
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    assert all("::test_" in row for row in rows[1:])


@pytest.mark.parametrize(
    "page", [PAGE, CRASHES, SECURITY], ids=["correctness", "crashes", "security"]
)
def test_every_test_on_a_page_is_written_so_that_it_is_checked(page: str) -> None:
    assert len(re.findall(r"::", page)) == len(
        re.findall(r"`tests/[\w/]+\.py::test_\w+`", page)
    )
