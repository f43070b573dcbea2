"""Botfarm for pytest: one test account, one holder at a time.

The names are loaded when first used, so that the plugin costs an ordinary run nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._version import __version__
    from .client.errors import (
        AcquireTimeoutError,
        BotfarmError,
        DeadlockError,
        InvalidRequestError,
        LeaseEndedError,
        LeaseLostError,
        NoSealingKeyError,
        NoSuchPoolError,
        PasswordNotHeldError,
        PoolTooSmallError,
        SecretNotHeldError,
        ServerError,
        ServerNotReachableError,
        WrongPasswordError,
    )
    from .client.models import NewUser, Outcome, Want
    from .clients import AsyncBotfarmClient, BotfarmClient
    from .embedded import EmbeddedServerError
    from .fixtures import BotUserFactory, leasing
    from .users import BotUser

__all__ = [
    "AcquireTimeoutError",
    "AsyncBotfarmClient",
    "BotUser",
    "BotUserFactory",
    "BotfarmClient",
    "BotfarmError",
    "DeadlockError",
    "EmbeddedServerError",
    "InvalidRequestError",
    "LeaseEndedError",
    "LeaseLostError",
    "NewUser",
    "NoSealingKeyError",
    "NoSuchPoolError",
    "Outcome",
    "PasswordNotHeldError",
    "PoolTooSmallError",
    "SecretNotHeldError",
    "ServerError",
    "ServerNotReachableError",
    "Want",
    "WrongPasswordError",
    "__version__",
    "leasing",
]

_MODULES = {
    "AsyncBotfarmClient": ".clients",
    "BotUser": ".users",
    "BotUserFactory": ".fixtures",
    "BotfarmClient": ".clients",
    "EmbeddedServerError": ".embedded",
    "NewUser": ".client.models",
    "Outcome": ".client.models",
    "Want": ".client.models",
    "__version__": "._version",
    "leasing": ".fixtures",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_MODULES.get(name, ".client.errors"), __name__)
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
