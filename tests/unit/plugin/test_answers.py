"""What a suite's hooks may answer, and who is named if they answer otherwise."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_botfarm import hookspecs
from pytest_botfarm.answers import answer_of, tell

implements = pytest.hookimpl


def hooks_of(**plugins: object) -> Any:
    """The hooks as pytest has them, with plugins that implement some."""
    manager = pytest.PytestPluginManager()
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        manager.register(plugin, name)
    return manager.hook


def test_the_first_answer_counts_and_none_leaves_it_to_the_next() -> None:
    hooks = hooks_of(
        first=SimpleNamespace(pytest_botfarm_password=lambda: "pa55word"),
        last=SimpleNamespace(pytest_botfarm_password=lambda: None),
    )
    assert answer_of(hooks.pytest_botfarm_password, str, user=None) == "pa55word"
    assert answer_of(hooks_of().pytest_botfarm_password, str, user=None) is None


def test_another_answer_is_told_by_its_type_with_who_may_have_given_it() -> None:
    @implements(wrapper=True)
    def pytest_botfarm_password() -> Generator[None, object, object]:
        return (yield)

    hooks = hooks_of(
        vault=SimpleNamespace(pytest_botfarm_password=lambda: {"pa55word": 1}),
        safe=SimpleNamespace(pytest_botfarm_password=lambda: None),
        watcher=SimpleNamespace(pytest_botfarm_password=pytest_botfarm_password),
    )
    with pytest.raises(TypeError) as error:
        answer_of(hooks.pytest_botfarm_password, str, user=None)
    assert str(error.value) == (
        "pytest_botfarm_password of vault or safe answered with dict. str or None is "
        "expected."
    )


def test_an_answer_that_nobody_reads_may_be_anything_that_ran() -> None:
    hooks = hooks_of(shop=SimpleNamespace(pytest_botfarm_clean=lambda: ["emptied"]))
    tell(hooks.pytest_botfarm_clean, user=None)
