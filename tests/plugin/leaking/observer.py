"""A conftest that keeps what other plugins see of each test, and what xdist sends."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest


def keep(node_id: str, text: str) -> None:
    with Path(f"kept-{os.getpid()}").open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps([node_id, text])}\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    report = yield
    keep(report.nodeid, report.longreprtext)
    keep(report.nodeid, f"{report.sections}{report.user_properties}")
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    sent = report._to_json()
    keep(report.nodeid, repr({name: it for name, it in sent.items() if name != "node"}))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    keep(report.nodeid, report.longreprtext)


def pytest_warning_recorded(
    warning_message: warnings.WarningMessage, nodeid: str
) -> None:
    keep(nodeid, str(warning_message))
