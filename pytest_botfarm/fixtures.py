"""The fixtures `bot_user`, one for each scope, and what they hand to a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from uuid import UUID

import pytest

if TYPE_CHECKING:
    from .client.models import Outcome
    from .holding import Holding
    from .preparing import Preparation
    from .report import Record
    from .session import LeaseSession
    from .users import BotUser
    from .wants import Wish


MARK = "bot_user"
FIXTURES = frozenset(
    {MARK, *(f"{scope}_{MARK}" for scope in ("class", "module", "package", "session"))}
)
MARK_SIGNATURE = "bot_user(env, domain, *, project_id=None, labels=None, count=1)"
CALL_SIGNATURE = "bot_user(env, domain, *, project_id=None, labels=None, wait=None)"

SESSION_ID = "session"
"""What holds the accounts of `session_bot_user`, for whoever waits for them."""

SESSION = pytest.StashKey["LeaseSession"]()
"""Where the session stands once it is made."""

FIGURES, FAULT = "botfarm_figures", "botfarm_fault"
"""Of a test's report: figures of its leases, and what is wrong with the whole run.
pytest-xdist carries both from the worker to the controller, report by report, so that a
worker's crash takes no more than its last test's along."""


class BotUserFactory:
    """Leases accounts to a test, or to all tests of a scope, until its teardown.

    `leased` are all accounts so far, those of the marks first.
    """

    def __init__(
        self,
        session: LeaseSession,
        preparation: Preparation,
        test_id: str,
        record: Record,
    ) -> None:
        self.leased: list[BotUser] = []
        self._session = session
        self._preparation = preparation
        self._test_id = test_id
        self._record = record
        self._from_marks: list[BotUser] = []

    def __call__(
        self,
        env: str | None = None,
        domain: str | None = None,
        *,
        project_id: UUID | str | None = None,
        labels: Mapping[str, str] | None = None,
        wait: float | None = None,
        **unknown: NoReturn,
    ) -> BotUser:
        """An account that is this test's alone until its teardown.

        The accounts that the marks leased are handed out first, each once. Beyond
        them this leases a new one and waits for it up to `wait` seconds; what is left
        out comes from the options. Raises a BotfarmError when there is none, and
        pytest.UsageError for a wrong argument.
        """
        __tracebackhide__ = True
        # Not before a lease is wanted.
        from .client.errors import BotfarmError  # noqa: PLC0415
        from .wants import wish_of_call  # noqa: PLC0415

        try:
            wish, wait = wish_of_call(
                self._test_id,
                env,
                domain,
                project_id=project_id,
                labels=labels,
                wait=wait,
                **unknown,
            )
            wish = wish.with_defaults(self._session.settings)
            return self._from_mark(wish) or self._lease([wish], wait)[0]
        except (BotfarmError, pytest.UsageError) as error:
            self._session.note_fault(error)
            # The test's own line says more than the way through the client.
            raise error.with_traceback(None) from None

    async def acquire(
        self,
        env: str | None = None,
        domain: str | None = None,
        *,
        project_id: UUID | str | None = None,
        labels: Mapping[str, str] | None = None,
        wait: float | None = None,
        **unknown: NoReturn,
    ) -> BotUser:
        """The same for asynchronous tests: others of its event loop go on meanwhile.

        For asyncio and trio. If it is cancelled, whatever was leased is given back at
        the teardown.
        """
        __tracebackhide__ = True
        from anyio import to_thread  # noqa: PLC0415  # not before a lease is wanted

        call = partial(
            self,
            env,
            domain,
            project_id=project_id,
            labels=labels,
            wait=wait,
            **unknown,
        )
        return await to_thread.run_sync(call, abandon_on_cancel=True)

    def lease_marks(self, wishes: list[Wish]) -> None:
        """Lease what the marks ask for, all at once or not at all."""
        __tracebackhide__ = True
        defaults = self._session.settings
        users = self._lease([wish.with_defaults(defaults) for wish in wishes], None)
        self._from_marks.extend(users)

    def release(self) -> None:
        """Give all back, and fail if one had been lost meanwhile."""
        __tracebackhide__ = True
        outcome = self._record.outcome
        self._record.is_over = True
        problems: list[str] = []
        # The last first, and each whatever is raised in the release of another.
        with ExitStack() as stack:
            for holding in self._record.holdings:
                stack.callback(self._give_back, holding, outcome, problems)
        self._record.notes += self._session.take_notes()
        # Where something else is being raised, Ctrl-C say, it goes first.
        if problems and sys.exc_info()[0] is None:
            # As a failure without a traceback: none of its lines is the test's.
            pytest.fail("\n".join(problems), pytrace=False)

    def _give_back(
        self, holding: Holding, outcome: Outcome, problems: list[str]
    ) -> None:
        __tracebackhide__ = True
        holding.is_over = True
        try:
            problems += self._preparation.tell_release(holding, outcome)
        finally:
            loss = self._session.release(
                holding, outcome=outcome, clean=outcome != "unknown"
            )
        if loss is not None:
            problems.append(str(loss))
            self._record.lost.append(str(loss).splitlines()[0])

    def _from_mark(self, wish: Wish) -> BotUser | None:
        for user in self._from_marks:
            if wish.is_met_by(user):
                self._from_marks.remove(user)
                return user
        return None

    def _lease(self, wishes: list[Wish], wait: float | None) -> list[BotUser]:
        __tracebackhide__ = True
        from .holding import Holding  # noqa: PLC0415  # not before the first lease

        holding = Holding([wish.want() for wish in wishes])
        # Noted before it is asked for: Ctrl-C may come before the answer does.
        self._record.holdings.append(holding)
        wait = self._session.settings.wait if wait is None else wait
        self._preparation.acquire(holding, wait=wait)
        self.leased.extend(holding.users)
        return list(holding.users)


def put_marks_first(item: Any) -> None:
    """Have a marked test lease before its other fixtures begin, whether it names the
    fixture or not.

    And so give back what was leased after these have ended. Fixtures of wider scopes
    come before all that.
    """
    # Not public: nothing that is tells the scope of a fixture before its set-up. To
    # lease from within that would break the fixture, where the lease fails.
    info = getattr(item, "_fixtureinfo", None)
    if info is None or not item.get_closest_marker(MARK):
        return
    names, definitions = item.fixturenames, info.name2fixturedefs
    own = [
        name
        for name in names
        if name in definitions and definitions[name][-1].scope == "function"
    ]
    first = names.index(own[0]) if own else len(names)
    if MARK not in names[: first + 1]:
        others = (name for name in names[first:] if name != MARK)
        # A list of its own: all tests of a parametrized function share the first one.
        item.fixturenames = [*names[:first], MARK, *others]


def leasing(request: pytest.FixtureRequest) -> Iterator[BotUserFactory]:
    """Lease test accounts: `user = bot_user("stage", "regular")`.

    The account is this test's alone until its teardown. `bot_user.leased` are
    all of them, those of the mark `bot_user` first.

    Those of other scopes, in a conftest.py of your own, are made of this:
    `package_bot_user = pytest.fixture(scope="package")(leasing)`.
    """
    __tracebackhide__ = _has_other_lines
    # Not before a lease is wanted.
    from .configured import session_of  # noqa: PLC0415
    from .preparing import Preparation  # noqa: PLC0415
    from .report import RECORDS, Record  # noqa: PLC0415

    node = request.node
    is_for_one_test = request.scope == "function"
    test_id = node.nodeid or SESSION_ID  # the node of the session has no name
    record = Record(test_id, request.fixturename)
    node.stash.setdefault(RECORDS, []).append(record)
    session = session_of(request.config)
    preparation = Preparation(session, node.ihook, test_id, record.note)
    factory = BotUserFactory(session, preparation, test_id, record)
    # Not a finalizer: pytest forgets those that a fixture adds when Ctrl-C strikes in
    # its set-up.
    try:
        if is_for_one_test:
            record.given_back = session.give_back_kept(node.nodeid)
            _lease_marks(session, factory, node)
        yield factory
    finally:
        factory.release()


def _has_other_lines(error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether lines of the suite tell of an error: not where a fixture itself fails.

    pytest would add to that failure that all of its lines are hidden.
    """
    return not error.errisinstance(pytest.fail.Exception)


def _lease_marks(
    session: LeaseSession, factory: BotUserFactory, node: pytest.Item
) -> None:
    __tracebackhide__ = True
    from .client.errors import BotfarmError  # noqa: PLC0415  # the same
    from .wants import wishes_of_marks  # noqa: PLC0415  # the same

    problem = None
    try:
        wishes = wishes_of_marks(node.nodeid, node.iter_markers(MARK))
        if wishes:
            factory.lease_marks(wishes)
    except (BotfarmError, pytest.UsageError) as error:
        session.note_fault(error)
        problem = str(error)
    if problem is not None:
        # Without a traceback: none of its lines is the test's.
        pytest.fail(problem, pytrace=False)


def _shared(scope: Literal["class", "module", "package", "session"]) -> Any:
    def fixture(request: pytest.FixtureRequest) -> Iterator[BotUserFactory]:
        yield from leasing(request)

    # pytest ends those of packages late, unless they are defined in the package.
    end = "the run ends" if scope == "package" else "it ends"
    fixture.__doc__ = (
        f"As `bot_user`, leased once for all tests of a {scope}, until {end}.\n\n"
        "The marks lease for each test by itself, and so through `bot_user` alone."
    )
    return pytest.fixture(scope=scope, name=f"{scope}_{MARK}")(fixture)


bot_user = pytest.fixture(name=MARK)(leasing)
class_bot_user = _shared("class")
module_bot_user = _shared("module")
package_bot_user = _shared("package")
session_bot_user = _shared("session")
