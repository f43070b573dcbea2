"""Replacing one attribute of a module or class, loudly if it is not there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class replaced:  # noqa: N801 - reads as a statement, as `suppress` does
    """The piece that is about to be replaced.

    Raises:
        AttributeError: the package has changed, and what stood there is gone.

    """

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self.original: Callable[..., Any] = inspect.getattr_static(owner, name)

    def by(self, replacement: Callable[..., Any]) -> None:
        ours = list(inspect.signature(replacement).parameters)
        theirs = list(inspect.signature(self.original).parameters)
        named = [name for name in ours if name not in {"others", "args", "kwargs"}]
        if named != [name for name in theirs if name in named]:
            raise AttributeError(
                f"{self._name} of {self._owner} takes {theirs}, and not {named}"
            )
        setattr(self._owner, self._name, replacement)
