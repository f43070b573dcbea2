"""Takes secrets out of what allure-pytest writes.

It takes the messages of exceptions from these themselves, not from pytest's reports.
Loaded where it writes a report, and only there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import allure_commons

if TYPE_CHECKING:
    import pytest

    from .masking import Masker


def mask_files(config: pytest.Config, masker: Masker) -> None:
    """Mask what this run will write: its tests, fixtures and steps, no attachments."""
    scrubber = _FileScrubber(masker)
    allure_commons.plugin_manager.register(scrubber)
    config.add_cleanup(lambda: allure_commons.plugin_manager.unregister(scrubber))


class _FileScrubber:
    """Changes what is about to be written."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker

    @allure_commons.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
    def report_result(self, result: object) -> None:
        self._scrubbed(result)

    @allure_commons.hookimpl(tryfirst=True)  # type: ignore[untyped-decorator]
    def report_container(self, container: object) -> None:
        self._scrubbed(container)

    def _scrubbed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._masker.mask(value)
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        if hasattr(value, "__attrs_attrs__"):
            for name, item in vars(value).items():
                setattr(value, name, self._scrubbed(item))
        return value
