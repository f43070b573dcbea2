"""Passwords that the suite supplies, compared with what the server knows of them."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .answers import answer_of
from .client.errors import BotfarmError, TooManyAttemptsError, WrongPasswordError

if TYPE_CHECKING:
    from .session import LeaseSession
    from .users import BotUser


class Comparing:
    """Lets the server compare each password of an account once for this process.

    That takes the server a third of a second, which no lease should cost.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[UUID, str], bool] = {}

    def check(self, session: LeaseSession, user: BotUser, password: str) -> None:
        """Raise WrongPasswordError for a password that the server has not the hash of.

        Where the server cannot compare it now, the next lease's may be compared.
        """
        key = (user.id, password)
        if key not in self._known:
            client = session.client()
            try:
                self._known[key] = client.run(client.protocol.verify_password(*key))
            except TooManyAttemptsError:
                return  # other processes of the run have compared it
            except BotfarmError as error:
                session.notes.append(
                    f"the password of {user.login} was not compared with the server's: "
                    f"{error}"
                )
                return
        if not self._known[key]:
            raise WrongPasswordError(user.login)


class Supply:
    """Asks the suite for the password of each account of a lease, once."""

    def __init__(self, hooks: Any, session: LeaseSession) -> None:
        self._hooks = hooks
        self._session = session
        self._answers: dict[BotUser, str | None] = {}
        self._asking = RLock()

    def __call__(self, user: BotUser) -> str | None:
        __tracebackhide__ = True
        with self._asking:
            if user not in self._answers:
                self._answers[user] = None  # also for a hook that reads the password
                hook = self._hooks.pytest_botfarm_password
                self._answers[user] = answer_of(hook, str, user=user)
                self._session.masker.learn(self._answers[user])
            password = self._answers[user]
            if password is not None:
                self._session.comparing.check(self._session, user, password)
            return password
