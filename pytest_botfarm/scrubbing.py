"""Takes secrets out of what pytest shows, writes and sends to another process.

Registered in a run that has a secret to keep, and only there.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import traceback
from collections.abc import Generator, Iterable
from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any

import pytest

from .client.environment import token_of
from .masking import Masker
from .report import ALLURE

if TYPE_CHECKING:
    import warnings

NAME = "botfarm-scrubber"
IDENTITY = frozenset({"_id", "nodeid", "location", "keywords", "when", "outcome"})
"""What of a report tells which test it is of, and how that ended."""
PLAIN = frozenset({bool, float, int})
"""Most values of reports that are no text: they are looked at for each test."""
LIVE_HANDLERS = ("log_cli_handler", "log_file_handler")
"""Of pytest's logging plugin: what they write appears in no report. Not the handler of
`caplog`, since a test may check that the system under test logs no password."""
SUBTEST = frozenset({"SubtestContext", "SubTestContext"})
"""What tells a subtest from its test, in pytest and in pytest-subtests."""
LONGEST_OPERAND = 240
"""Characters of a compared value that are shown."""


def masker_of(config: pytest.Config) -> Masker:
    """What knows the secrets of this process. From the first call on it is applied."""
    scrubber: Scrubber | None = config.pluginmanager.get_plugin(NAME)
    if scrubber is None:
        scrubber = Scrubber()
        # None where the command line says `-p no:botfarm-scrubber`.
        if config.pluginmanager.register(scrubber, NAME) is not None:
            scrubber.mask_live_logs(config.pluginmanager.get_plugin("logging-plugin"))
            if config.pluginmanager.has_plugin(ALLURE):
                from .allure_files import mask_files  # noqa: PLC0415  # if ever

                mask_files(config, scrubber.masker)
    return scrubber.masker


def learn_token(config: pytest.Config) -> None:
    """Mask the server's token, if the environment names one that can be read."""
    # Whoever uses it is told what is wrong with it.
    with suppress(ValueError):
        masker_of(config).learn(token_of(os.environ))


class Scrubber:
    """Applies a masker wherever something leaves the test."""

    def __init__(self) -> None:
        self.masker = Masker()

    def mask_live_logs(self, logging_plugin: object) -> None:
        for name in LIVE_HANDLERS:
            handler: logging.Handler | None = getattr(logging_plugin, name, None)
            if handler is not None and handler.formatter is not None:
                handler.setFormatter(_MaskingFormatter(handler.formatter, self.masker))

    # The innermost, so that other plugins find nothing to copy from the report.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._scrub_report(report)
        return report

    # Once more for what they added, before it is written, or sent to the controller.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._scrub_report(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        report.longrepr = self._scrubbed(report.longrepr)
        report.sections = self._scrubbed(report.sections)

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        text = str(warning_message.message)
        masked = self.masker.mask(text)
        if masked != text:
            warning_message.message = masked

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excrepr: object) -> None:
        self._scrub_attributes(excrepr, vars(excrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_assertrepr_compare(
        self, op: str, left: object, right: object
    ) -> list[str] | None:
        """In place of pytest's own explanation, which tells where two texts differ."""
        try:
            operands = [repr(left), repr(right)]
        except Exception:  # noqa: BLE001  # pytest knows how to show such an object
            return None
        masked = [self.masker.mask(text) for text in operands]
        if masked == operands:
            return None
        shown = (
            text if len(text) <= LONGEST_OPERAND else f"{text[:LONGEST_OPERAND]}..."
            for text in masked
        )
        return [f" {op} ".join(shown), "botfarm: no diff of what holds a secret"]

    # The outermost. Python itself shows such an error, and asks no plugin.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        try:
            yield
        except pytest.exit.Exception:
            raise
        except Exception as error:
            shown = "".join(traceback.format_exception(error))
            masked = self.masker.mask(shown)
            if masked == shown:
                raise
            sys.stderr.write(masked)
            pytest.exit("the session did not finish", returncode=1)

    def _scrub_report(self, report: pytest.TestReport) -> None:
        self._scrub_attributes(report, vars(report).keys() - IDENTITY)

    def _scrub_attributes(self, owner: object, names: Iterable[str]) -> bool:
        """Whether any has changed."""
        changed = False
        for name in list(names):
            value = getattr(owner, name)
            scrubbed = self._scrubbed(value)
            if scrubbed is not value:
                object.__setattr__(owner, name, scrubbed)  # some are frozen
                changed = True
        return changed

    def _scrubbed(self, value: Any) -> Any:
        """The value itself, or a copy of it without the secrets.

        Never changes it: it may be an object of the test's.
        """
        if value is None or type(value) in PLAIN:
            return value
        if isinstance(value, str):
            masked = self.masker.mask(value)
            return value if masked == value else masked
        if type(value) in {list, tuple}:
            return self._scrubbed_items(value)
        if type(value) is dict:
            copied = {name: self._scrubbed(item) for name, item in value.items()}
            return value if all(map(is_, copied.values(), value.values())) else copied
        if hasattr(value, "toterminal") or type(value).__name__ in SUBTEST:
            names = vars(value) if hasattr(value, "__dict__") else value.__slots__
            scrubbed = copy.copy(value)
            return scrubbed if self._scrub_attributes(scrubbed, names) else value
        return value

    def _scrubbed_items(self, items: Any) -> Any:
        if type(items) is list and all(type(item) is str for item in items):
            # Lines of a traceback, some with and some without their ends: one secret
            # may be broken over several.
            has_ends = all(item.endswith("\n") for item in items)
            text = ("" if has_ends else "\n").join(items)
            masked = self.masker.mask(text)
            if masked == text:
                return items
            return masked.splitlines(keepends=True) if has_ends else masked.split("\n")
        scrubbed = [self._scrubbed(item) for item in items]
        return items if all(map(is_, scrubbed, items)) else type(items)(scrubbed)


class _MaskingFormatter(logging.Formatter):
    """Formats as another one does, without the secrets."""

    def __init__(self, formatter: logging.Formatter, masker: Masker) -> None:
        super().__init__()
        self._formatter = formatter
        self._masker = masker

    def format(self, record: logging.LogRecord) -> str:
        return self._masker.mask(self._formatter.format(record))
