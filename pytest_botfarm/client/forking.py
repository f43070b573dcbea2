"""What a forked child must not share with its parent.

A connection that is used on both sides of a fork gives the answers of one process to
the other: somebody else's password. Leases belong to the parent alone as well.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    def after_fork_in_child(self) -> None:
        """Drop what belongs to the parent; take no lock, since it may be held."""


_aware: WeakSet[ForkAware] = WeakSet()


def on_fork(thing: ForkAware) -> None:
    """Have the thing told in every child that this process forks."""
    _aware.add(thing)


def _in_child() -> None:
    for thing in list(_aware):
        thing.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)
