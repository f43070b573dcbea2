"""What the suite's hooks do with accounts, from their grant to their release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .answers import tell
from .client.clock import clock
from .failures import described, failure_of, place_of
from .making import Making
from .supplying import Supply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .client.models import Outcome
    from .holding import Holding
    from .session import LeaseSession


class Preparation:
    """Leases accounts for one test or scope, and lets the hooks at them."""

    def __init__(
        self,
        session: LeaseSession,
        hooks: Any,
        test_id: str,
        note: Callable[[str], None],
    ) -> None:
        """`hooks` are pytest's for the node, `note` tells something in its report."""
        self._session = session
        self._hooks = hooks
        self._test_id = test_id
        self._making = Making(session, hooks, test_id, note)

    def acquire(self, holding: Holding, *, wait: float) -> None:
        """Fill a holding with a lease of clean accounts, within `wait` seconds.

        After an exception, too, it wants a release.
        """
        __tracebackhide__ = True
        ends = clock() + wait
        while True:
            self._making.acquire(holding, ends=ends)
            supply = Supply(self._hooks, self._session)
            for user in holding.users:
                user.supply_password_by(supply)
            if self._clean(holding):
                break
        self._tell_acquired(holding)

    def tell_release(self, holding: Holding, outcome: Outcome) -> Sequence[str]:
        """Tell the hooks what is about to be given back. Returns what they failed with.

        Nothing is told of what they never heard of, or in a forked child.
        """
        if not holding.is_told or not self._session.holds(holding):
            return []
        holding.is_told = False
        hook = self._hooks.pytest_botfarm_releasing
        given = {"nodeid": self._test_id, "outcome": outcome}
        mask = self._session.masker.mask
        return [
            f"pytest_botfarm_releasing failed for {user.login}: "
            f"{described(error, mask)}{place_of(error)}"
            for user in holding.users
            if (error := failure_of(hook, user=user, **given))
        ]

    def _clean(self, holding: Holding) -> bool:
        """Clean what is dirty; false if that failed, and all was given back."""
        hook = self._hooks.pytest_botfarm_clean
        mask = self._session.masker.mask
        dirty = [user for user in holding.users if user.dirty]
        if not dirty or not hook.get_hookimpls():
            return True
        is_clean = False
        try:
            failures = [(user, failure_of(hook, user=user)) for user in dirty]
            for user, error in failures:
                user.dirty = error is not None
                if error is not None:
                    user.quarantine(f"cleaning failed: {described(error, mask)}")
            is_clean = not any(user.dirty for user in dirty)
        finally:
            if not is_clean:
                self._session.release(holding, outcome="unknown", clean=False)
                holding.begin_anew()
        return is_clean

    def _tell_acquired(self, holding: Holding) -> None:
        __tracebackhide__ = True
        holding.is_told = True
        try:
            for user in holding.users:
                hook = self._hooks.pytest_botfarm_acquired
                tell(hook, user=user, nodeid=self._test_id)
        except BaseException:
            try:
                self._session.notes += self.tell_release(holding, "error")
            finally:
                self._session.release(holding, outcome="error", clean=False)
            raise
