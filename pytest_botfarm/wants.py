"""From what a mark or a call says to what is asked of the server."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from .client.models import Want
from .fixtures import CALL_SIGNATURE, MARK, MARK_SIGNATURE
from .options import MAXIMUM_WAIT

if TYPE_CHECKING:
    from .settings import Settings
    from .users import BotUser

MAXIMUM_COUNT = 100


@dataclass(frozen=True, slots=True)
class Wish:
    """A want that may still be open: an env or domain that is None matches any."""

    env: str | None
    domain: str | None
    project_id: UUID | None
    labels: Mapping[str, str]
    count: int = 1

    def with_defaults(self, settings: Settings) -> Wish:
        return replace(
            self, env=self.env or settings.env, domain=self.domain or settings.domain
        )

    def is_met_by(self, user: BotUser) -> bool:
        return (
            self.env in {None, user.env}
            and self.domain in {None, user.domain}
            and self.project_id in {None, user.project_id}
            and self.labels.items() <= user.labels.items()
        )

    def want(self) -> Want:
        """The want. Raises pytest.UsageError where neither the test nor an option
        names the env or the domain.
        """
        if self.env is None or self.domain is None:
            name = "env" if self.env is None else "domain"
            raise pytest.UsageError(
                f"bot_user needs the {name} of the account: name it in the call or "
                f"the mark, or set --botfarm-{name} or BOTFARM_{name.upper()}"
            )
        return Want(self.env, self.domain, self.project_id, self.labels, self.count)


def make_wish(
    env: Any = None,
    domain: Any = None,
    *,
    project_id: Any = None,
    labels: Any = None,
    count: Any = 1,
) -> Wish:
    """Check each value. Raises pytest.UsageError that names the first bad one."""
    for name, value in (("env", env), ("domain", domain)):
        if value is not None and not (isinstance(value, str) and value):
            raise pytest.UsageError(f"{name} must be a name, not {value!r}")
    if isinstance(project_id, str):
        try:
            project_id = UUID(project_id)
        except ValueError:
            raise pytest.UsageError(
                f"project_id must be a UUID, not {project_id!r}"
            ) from None
    if not (project_id is None or isinstance(project_id, UUID)):
        raise pytest.UsageError(f"project_id must be a UUID, not {project_id!r}")
    labels = {} if labels is None else labels
    if not isinstance(labels, Mapping) or not all(
        isinstance(text, str) and text for pair in labels.items() for text in pair
    ):
        raise pytest.UsageError(
            f"labels must map names to text, like {{'role': 'admin'}}, not {labels!r}"
        )
    if type(count) is not int or not 1 <= count <= MAXIMUM_COUNT:
        raise pytest.UsageError(
            f"count must be a whole number from 1 to {MAXIMUM_COUNT}, not {count!r}"
        )
    return Wish(env, domain, project_id, dict(labels), count)


def wish_of_call(
    test_id: str, *args: Any, wait: Any = None, **kwargs: Any
) -> tuple[Wish, float | None]:
    """The wish of a call of bot_user, and for how many seconds it is ready to wait.

    Raises pytest.UsageError that names the test and the argument.
    """
    try:
        _check_arguments(*args, **kwargs)
        return make_wish(*args, **kwargs), _check_wait(wait)
    except pytest.UsageError as error:
        raise pytest.UsageError(
            f"a call of bot_user in {test_id} is wrong: {error}"
        ) from None


def wishes_of_marks(test_id: str, marks: Iterable[pytest.Mark]) -> list[Wish]:
    """The wishes of all marks of a test, in the order in which they are written.

    Raises pytest.UsageError that names the test and the parameter.
    """
    # pytest gives the mark nearest to the function first.
    wishes = [_wish_of_mark(test_id, mark) for mark in reversed(list(marks))]
    count = sum(wish.count for wish in wishes)
    if count > MAXIMUM_COUNT:
        raise pytest.UsageError(
            f"the marks bot_user of {test_id} ask for {count} accounts in all: at most "
            f"{MAXIMUM_COUNT} are leased at once"
        )
    return wishes


def problems_of_marks(items: Iterable[pytest.Item]) -> list[str]:
    """What is wrong with the marks of the tests, each test in a line of its own."""
    problems = []
    for item in items:
        try:
            wishes_of_marks(item.nodeid, item.iter_markers(MARK))
        except pytest.UsageError as error:
            problems.append(str(error))
    return problems


def _wish_of_mark(test_id: str, mark: pytest.Mark) -> Wish:
    try:
        inspect.signature(make_wish).bind(*mark.args, **mark.kwargs)
        return make_wish(*mark.args, **mark.kwargs)
    except (TypeError, pytest.UsageError) as error:
        raise pytest.UsageError(
            f"the mark bot_user of {test_id} is wrong: {error}. "
            f"It reads {MARK_SIGNATURE}"
        ) from None


def _check_arguments(*args: Any, **kwargs: Any) -> None:
    if "count" in kwargs:
        raise pytest.UsageError(
            "it leases one account, and so has no count. The mark leases several at "
            'once: @pytest.mark.bot_user("stage", "regular", count=2), and they are in '
            "bot_user.leased"
        )
    try:
        inspect.signature(make_wish).bind(*args, **kwargs)
    except TypeError as error:
        raise pytest.UsageError(f"{error}. It reads {CALL_SIGNATURE}") from None


def _check_wait(wait: Any) -> float | None:
    if wait is None:
        return None
    is_number = isinstance(wait, (int, float)) and not isinstance(wait, bool)
    if not (is_number and 0 <= wait <= MAXIMUM_WAIT):  # nor is NaN within
        raise pytest.UsageError(
            f"wait must be a number of seconds from 0 to {MAXIMUM_WAIT:g}, not {wait!r}"
        )
    return float(wait)
