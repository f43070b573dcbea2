"""Calls of the suite's hooks, and whether what they answer can be used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def answer_of(hook: Any, kind: type[T], **arguments: object) -> T | None:
    """The first answer of a hook that is not None.

    Raises TypeError that names the hook and where it comes from, if it is no `kind`.
    """
    __tracebackhide__ = True
    answer = hook(**arguments)
    if answer is None or isinstance(answer, kind):
        return answer
    raise _wrong(hook, answer, f"{kind.__name__} or None")


def tell(hook: Any, **arguments: object) -> None:
    """Call a hook whose answers nobody reads.

    Raises TypeError that names it and where it comes from, if it did not even run.
    """
    __tracebackhide__ = True
    for answer in hook(**arguments):
        if isinstance(answer, (Coroutine, Generator, AsyncGenerator)):
            raise _wrong(hook, answer, "None")


def named(hook: Any) -> str:
    """A hook with the plugins that implement it, of which any may have answered."""
    places = " or ".join(
        str(it.plugin_name)
        for it in hook.get_hookimpls()
        if not (it.wrapper or it.hookwrapper)
    )
    return f"{hook.name} of {places}"


def _wrong(hook: Any, answer: object, expected: str) -> TypeError:
    told = f"{named(hook)} answered with {type(answer).__name__}"
    if isinstance(answer, (Coroutine, AsyncGenerator)):
        told += ": a hook is a plain function, since nothing would await it"
    elif isinstance(answer, Generator):
        told += ": a hook does not yield, but for wrappers"
    if isinstance(answer, Coroutine):
        answer.close()  # or Python warns that nobody has awaited it
    # Not the answer itself, which may be a secret.
    return TypeError(f"{told}. {expected} is expected.")
