"""New accounts, which the suite makes where a pool is short."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

import pytest

from .answers import answer_of, named
from .client.clock import clock, jitter
from .client.core import SLICE, LeaseProtocol
from .client.errors import (
    AcquireTimeoutError,
    BotfarmError,
    NoSuchPoolError,
    PoolFullError,
    PoolTooSmallError,
    TooManyPlacesError,
)
from .client.exchange import Conversation
from .client.models import NewUser, Want
from .failures import described, place_of

if TYPE_CHECKING:
    from .holding import Holding
    from .session import LeaseSession

BRIEF = 1.0
"""Seconds that a test waits before an account is made: most waits are over by then."""
PAUSE = (0.25, 0.75)
"""Seconds, at random, between two looks for an account that another process makes."""
FIRST_REST, LONGEST_REST = 30.0, 300.0
"""Seconds without a new try after one that failed, and at most."""
NO_LIMIT = (
    "this suite can make accounts (pytest_botfarm_make_user), and was not asked to: "
    "--botfarm-pool-limit says up to how many in a pool"
)

T = TypeVar("T")
Made = Literal["made", "coming", "none"]

_sleep = partial(time.sleep)  # bound at import, before a test can put a double there


@dataclass
class Willingness:
    """What one process knows of its suite's readiness to make accounts."""

    rests_until: float = 0.0
    rest: float = FIRST_REST
    refused: list[Want] = field(default_factory=list)

    def failed(self) -> None:
        """Let some time pass before the next try, more each time."""
        self.rests_until = clock() + self.rest
        self.rest = min(2 * self.rest, LONGEST_REST)

    def succeeded(self) -> None:
        self.rest = FIRST_REST


class Making:
    """Leases for one test or scope, and has accounts made for it."""

    def __init__(
        self,
        session: LeaseSession,
        hooks: Any,
        test_id: str,
        note: Callable[[str], None],
    ) -> None:
        self._session = session
        self._hook = hooks.pytest_botfarm_make_user
        self._test_id = test_id
        self._note = note

    def acquire(self, holding: Holding, *, ends: float) -> None:
        """Fill a holding with a lease before the instant `ends`."""
        if self._hook.get_hookimpls() and self._make_until_leased(holding, ends):
            return
        self._lease(holding, max(0.0, ends - clock()))

    def _make_until_leased(self, holding: Holding, ends: float) -> bool:
        """Wait in turns, and have an account made between two; is there a lease?"""
        turn = BRIEF
        while (left := ends - clock()) > 0:
            impossible = None
            try:
                self._lease(holding, min(turn, left), keep_place=True)
            except AcquireTimeoutError:
                if not self._session.holds(holding):
                    raise  # its place was not kept: the test has no more time
            except (NoSuchPoolError, PoolTooSmallError) as error:
                impossible = error
            else:
                return True
            made: Made = "none"
            if clock() < ends:
                made = self._make_one(holding, tell_if_full=impossible is not None)
            if impossible and made == "none":
                raise impossible
            if impossible:
                holding.begin_anew()  # the server may know the refused id as ended
            if impossible and made == "coming":
                _sleep(min(jitter(*PAUSE), left))
            turn = BRIEF if impossible or made == "made" else SLICE
        return False

    def _make_one(self, holding: Holding, *, tell_if_full: bool) -> Made:
        """Have one account made, if the limit has a place for it."""
        limit, willingness = self._session.settings.pool_limit, self._session.making
        if limit is None:
            self._note(NO_LIMIT)
        if limit is None or clock() < willingness.rests_until:
            return "none"
        made: Made = "none"
        for want in self._short(holding.wants):
            if want in willingness.refused:
                continue
            try:
                place = self._run(self._protocol.reserve(want, limit=limit))
            except TooManyPlacesError:
                made = "coming"
            except PoolFullError as error:
                if error.is_being_filled:
                    made = "coming"
                elif tell_if_full:
                    self._note(f"no account was made for {want}: {error}")
            else:
                self._leave_queue(holding)
                return "made" if self._fill(place, want) else "none"
        return made

    def _short(self, wants: Sequence[Want]) -> Sequence[Want]:
        """The wants for which one account more is needed, each with a count of 1."""
        together = _together(wants)
        short: Sequence[Want] = together
        if len(together) > 1:
            # Where each could be met by itself, they are short of what they share.
            short = [
                want
                for want in together
                if self._run(self._protocol.count_free(want)) < want.count
            ] or together
        return [replace(want, count=1) for want in short]

    def _leave_queue(self, holding: Holding) -> None:
        """To make an account takes longer than a waiter that does not ask is kept."""
        if self._session.holds(holding):
            # It may have been granted since, and what it was granted may be dirty.
            self._session.release(holding, outcome="unknown", clean=False)
            holding.begin_anew()

    def _fill(self, place: UUID, want: Want) -> bool:
        """Have an account made for a reserved place, which is given back otherwise."""
        willingness = self._session.making
        is_filled = False
        try:
            new = answer_of(self._hook, NewUser, want=want)
            if new is None:
                willingness.refused.append(want)
                told = f"{named(self._hook)} answered with None"
                self._note(f"no account was made for {want}: {told}")
            else:
                self._store(new, want, place)
                is_filled = True
                willingness.succeeded()
        except pytest.exit.Exception:
            raise
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - any of theirs
            willingness.failed()
            self._note(
                f"no account was made for {want} in {self._test_id}: "
                f"{described(error)}{place_of(error)}"
            )
        finally:
            if not is_filled:
                with suppress(BotfarmError):  # it expires by itself
                    self._run(self._protocol.give_place_back(place))
        return is_filled

    def _store(self, new: NewUser, want: Want, place: UUID) -> None:
        labels = {**want.labels, **new.labels}
        if not want.labels.items() <= labels.items() or (
            want.project_id not in {None, new.project_id or want.project_id}
        ):
            raise ValueError(f"{new!r} does not match {want}")
        try:
            self._run(self._protocol.create_user(want, new, place))
        except BotfarmError as error:
            raise BotfarmError(
                f"the account {new.login} was made, and not stored: {error}"
            ) from error

    def _lease(
        self, holding: Holding, wait: float, *, keep_place: bool = False
    ) -> None:
        self._session.acquire(
            holding, wait=wait, test_id=self._test_id, keep_place=keep_place
        )

    @property
    def _protocol(self) -> LeaseProtocol:
        return self._session.client().protocol

    def _run(self, conversation: Conversation[T]) -> T:
        return self._session.client().run(conversation)


def _together(wants: Sequence[Want]) -> Sequence[Want]:
    """The wants, those that differ in their count alone as one."""
    together: dict[Hashable, Want] = {}
    for want in wants:
        name = replace(want, count=1).key
        count = want.count + (together[name].count if name in together else 0)
        together[name] = replace(want, count=count)
    return list(together.values())
