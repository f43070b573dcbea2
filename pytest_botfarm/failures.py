"""What a hook of the suite failed with, and how it is told."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .answers import tell

MAXIMUM_TEXT = 500
"""Characters of an error that are told: the first ones say what happened."""
_NOT_THE_SUITES = frozenset({"pluggy", "pytest_botfarm"})


def failure_of(hook: Any, **arguments: object) -> BaseException | None:
    """Call a hook; what it raised, unless that is to end more than the hook."""
    try:
        tell(hook, **arguments)
    except pytest.exit.Exception:
        raise
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any of theirs
        return error
    return None


def described(
    error: BaseException, mask: Callable[[str], str] = lambda text: text
) -> str:
    """An error's kind and message, as the server stores them."""
    text = mask(f"{type(error).__name__}: {error}").replace("\x00", "")
    return text.encode(errors="replace").decode()[:MAXIMUM_TEXT]


def place_of(error: BaseException) -> str:
    """Where in the suite it came from, as ` (conftest.py:12)`, if from there."""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.parent.name not in _NOT_THE_SUITES:
            return f" ({path.name}:{frame.lineno})"
    return ""
