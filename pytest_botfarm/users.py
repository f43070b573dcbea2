"""The account that a test gets into its hands."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from uuid import UUID

from .masking import Secrets

if TYPE_CHECKING:
    from .client.models import LeasedUser
    from .kept_state import KeptState, State

S = TypeVar("S", bound="State")


class BotUser:
    """A leased test account, exclusively this test's until its teardown.

    Neither its repr nor a failed comparison shows a secret.
    """

    __slots__ = (
        "_kept_state",
        "_password",
        "_put_in_quarantine",
        "_supply_password",
        "dirty",
        "domain",
        "env",
        "fence",
        "id",
        "labels",
        "login",
        "project_id",
        "secrets",
    )

    def __init__(
        self,
        user: LeasedUser,
        put_in_quarantine: Callable[[UUID, str, str], None],
        kept_state: KeptState,
    ) -> None:
        self.id: UUID = user.id
        self.login: str = user.login
        self.env: str = user.env
        self.domain: str = user.domain
        self.project_id: UUID | None = user.project_id
        self.labels: Mapping[str, str] = MappingProxyType(dict(user.labels))
        self.secrets: Mapping[str, str] = Secrets(user.secrets)
        self.fence: int = user.fence
        """Grows with every grant of the account, so it tells old holders from new."""
        self.dirty: bool = user.dirty
        """Whether its last lease did not end with a clean release."""
        self._password = user.password
        self._put_in_quarantine = put_in_quarantine
        self._kept_state = kept_state
        self._supply_password: Callable[[BotUser], str | None] | None = None

    @property
    def password(self) -> str:
        """The password. Raises PasswordNotHeldError if the server keeps no more than
        its hash, and the suite does not supply it; WrongPasswordError if it supplies
        another one than that of the hash.
        """
        __tracebackhide__ = True
        if self._password is None and self._supply_password is not None:
            self._password = self._supply_password(self)
        if self._password is None:
            # Imported here, since no run that leases nothing should pay for it.
            from .client.errors import PasswordNotHeldError  # noqa: PLC0415

            raise PasswordNotHeldError(self.login)
        return self._password

    def totp(self, name: str = "totp") -> str:
        """The one-time code of this moment, by the real clock even in a frozen test.

        The secret of that name is a base32 seed or an `otpauth://totp/` URI. Many
        systems take each code once: who signs in again may have to wait for the next.

        Raises:
            SecretNotHeldError: there is no such secret, or no code can be made of it.

        """
        __tracebackhide__ = True
        from .client.errors import SecretNotHeldError  # noqa: PLC0415  # the same
        from .totp import code_of  # noqa: PLC0415  # the same

        if name not in self.secrets:
            raise SecretNotHeldError(self.login, name, "to make codes of")
        try:
            return code_of(self.secrets[name])
        except ValueError:
            problem = "that is a base32 seed or an otpauth://totp/ URI"
            raise SecretNotHeldError(self.login, name, problem) from None

    @property
    def state(self) -> Any:
        """What this or an earlier holder saved: text, a dict or a list; or None.

        It is gone once it has expired, the password was changed, or a lease of the
        account ended without a clean release. Each reading is a copy of its own.
        """
        return self._kept_state.value

    def save_state(self, state: State, *, expires_in: float | None = None) -> None:
        """Leave a state for the next holders, for `expires_in` seconds or an hour.

        For what a login gave: cookies, a token, Playwright's `storage_state()`. Text,
        or a dict or a list of what JSON can tell, of 256 kB at most. It comes back as
        JSON tells it: a tuple within it as a list, the key 1 of a dict as "1". If it is
        refused, `state` stays as it was.

        Raises:
            TypeError: it is something else.
            NoSealingKeyError: the server has no key to seal it with.
            BotfarmError: the lease is lost, or the server cannot be reached.

        """
        __tracebackhide__ = True
        _plainly(partial(self._kept_state.save, state, expires_in))

    def drop_state(self) -> None:
        """Leave the next holders nothing, and forget the state here too.

        Raises:
            BotfarmError: the lease is lost, or the server cannot be reached.

        """
        __tracebackhide__ = True
        _plainly(self._kept_state.drop)

    def login_once(
        self, function: Callable[[BotUser], S], *, expires_in: float | None = None
    ) -> S:
        """The state, or what `function` makes of the account, as `save_state` keeps it.

        So of all tests that lease the account one signs in. It has one holder at a
        time, and so only threads of this one could call `function` at once: they take
        turns. If the server cannot keep the state, it is this test's all the same, and
        the run's summary says why.

        Whether the system under test still takes the state is not promised: who finds
        that it does not calls `drop_state` and then this again.

        Raises:
            TypeError: the function gave neither text, nor a dict, nor a list, or is a
                coroutine function.
            BotfarmError: the lease is lost. What the function raises goes through.

        """
        __tracebackhide__ = True
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                f"{_named(function)} is a coroutine function: await login_once_async "
                "instead"
            )
        return self._kept_state.or_from(partial(function, self), expires_in)

    async def login_once_async(
        self,
        function: Callable[[BotUser], Awaitable[S]],
        *,
        expires_in: float | None = None,
    ) -> S:
        """`login_once` of an asynchronous function, for tasks that take turns."""
        __tracebackhide__ = True

        async def sign_in() -> S:
            __tracebackhide__ = True
            made = function(self)
            if not inspect.isawaitable(made):
                raise TypeError(
                    f"{_named(function)} gave a {type(made).__name__} and nothing to "
                    "await: call login_once instead"
                )
            return await made

        return await self._kept_state.or_awaited_from(sign_in, expires_in)

    def supply_password_by(self, supply: Callable[[BotUser], str | None]) -> None:
        """Ask `supply` for the password once it is read and the server has none."""
        self._supply_password = supply

    def quarantine(self, reason: str) -> None:
        """Take the account out of rotation, until a person restores it.

        For one that is broken: locked out, say, or in a state that no test can mend.
        It stays this test's until the teardown, and nobody gets it afterwards.

        Raises:
            BotfarmError: the server cannot be reached or refuses it.

        """
        __tracebackhide__ = True
        put = partial(self._put_in_quarantine, self.id, self.login, reason)
        _plainly(put)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a BotUser cannot be copied or pickled: the lease is this process's alone. "
            "Pass on its login and password"
        )

    def __repr__(self) -> str:
        return f"BotUser({self.login!r}, {self.env!r}, {self.domain!r})"


def _named(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", "the function")  # a partial has no name


def _plainly(call: Callable[[], None]) -> None:
    """Call it, and leave out of its error the lines of the client: none is a test's."""
    __tracebackhide__ = True
    from .client.errors import BotfarmError  # noqa: PLC0415  # the same

    try:
        call()
    except BotfarmError as error:
        raise error.with_traceback(None) from None
