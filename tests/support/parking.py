"""Operations that stop where a test says: at the n-th time that they wait.

A coroutine gives the event loop back only where it waits: for an answer of the
database, for a connection or for a lock of this process. Each of these places is
counted here, so that a test can let something else happen at every one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Steps(Generic[T]):
    """Drives a coroutine, and lets others in before or after one of its waits."""

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        *,
        waits: Callable[[int], None],
        waited: Callable[[int], Awaitable[object] | None],
    ) -> None:
        self._work = work
        self._waits = waits
        self._waited = waited

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._work.__await__()
        number = 0
        error: BaseException | None = None
        while True:
            try:
                future = next(inner) if error is None else inner.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            error = None
            number += 1
            self._waits(number)
            try:
                yield future
                pause = self._waited(number)
                if pause is not None:
                    yield from pause.__await__()
            except BaseException as raised:  # noqa: BLE001 - it is the coroutine's own
                error = raised


async def _drive(steps: _Steps[T]) -> T:
    return await steps


class Parked(Generic[T]):
    """An operation that stands still after one of its waits, until it may go on.

    What it waited for has happened by then: its statement was executed, its lock is
    its own. It has not yet seen that.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._at = 0
        self._reached = asyncio.Event()
        self._gate = asyncio.Event()
        self._work = work
        self.task: asyncio.Task[T] | None = None

    async def __aenter__(self) -> Parked[T]:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Whatever a test finds, nothing keeps standing with its locks."""
        await ended(self.task)

    def _park(self, number: int) -> Awaitable[object] | None:
        if number != self._at:
            return None
        self._reached.set()
        return self._gate.wait()

    async def comes_to(self, wait: int) -> bool:
        """Let it go on to its wait of that number; false if it ends before."""
        self._go_on(wait)
        assert self.task is not None
        reached = asyncio.create_task(self._reached.wait())
        await asyncio.wait({reached, self.task}, return_when="FIRST_COMPLETED")
        reached.cancel()
        return self._reached.is_set()

    async def ends(self) -> T:
        """Let it go on to its end."""
        self._go_on(0)
        assert self.task is not None
        return await self.task

    def _go_on(self, to: int) -> None:
        self._at = to
        self._gate.set()
        self._gate, self._reached = asyncio.Event(), asyncio.Event()
        if self.task is None:
            steps = _Steps(self._work, waits=lambda _: None, waited=self._park)
            self.task = asyncio.create_task(_drive(steps))


async def cancelled_at(number: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Cancel `work` while it waits for the n-th time; false if it never did so.

    Raises what `work` raised, if that was something else. What it left to end by
    itself, as the return of a connection, has ended then.
    """
    sent = False

    def cancel(reached: int) -> None:
        nonlocal sent
        if reached == number:
            sent = True
            # Behind the step that is under way: by then the task waits.
            asyncio.get_running_loop().call_soon(task.cancel)

    before = asyncio.all_tasks()
    task = asyncio.create_task(
        _drive(_Steps(work, waits=cancel, waited=lambda _: None))
    )
    await asyncio.wait({task})
    await all_of(asyncio.all_tasks() - before - {task})
    if not task.cancelled():
        task.result()
    return sent


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Cancel what is not over yet, and wait for its end."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task})


async def all_of(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=10.0)
