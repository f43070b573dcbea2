"""What wants lack of the users that are there, while these become more and more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lack:
    """Users of whom not enough are there: until then, looking again is of no use."""

    users: int
    """A set of them, as in `Group`."""
    needed: int


class Demand:
    """Wants that are met together, each with users of its own.

    It is a maximum bipartite matching by augmenting paths, as `assign` makes, but goes
    on where it ended when more users have come.
    """

    def __init__(self, wants: Mapping[int, int]) -> None:
        """Each want asks for so many of a set of users."""
        self._users = list(wants)
        self._counts = list(wants.values())
        self._left = list(wants.values())
        self._taken = [0] * len(wants)

    def lack(self, there: int, take_steps: Callable[[int], None]) -> Lack | None:
        """Of whom there are not enough, if not all wants can be met.

        Whoever was there before still is. What is done is told in steps, each for one
        want.
        """
        for want in range(len(self._users)):
            while self._left[want]:
                found = self._take_for(want, there, take_steps)
                if found is not None:
                    return found
        return None

    def _take_for(
        self, want: int, there: int, take_steps: Callable[[int], None]
    ) -> Lack | None:
        """Let a want have more users, for which others may exchange theirs."""
        spare = there
        for taken in self._taken:
            spare &= ~taken
        # Which want gets a user from each, in exchange for one that is spare.
        gets: dict[int, int | None] = {want: None}
        reached = [want]
        for giver in reached:  # it grows while we go through it
            take_steps(len(self._users))
            its = self._users[giver]
            if its & spare:
                self._exchange(giver, its & spare, gets)
                return None
            for other, taken in enumerate(self._taken):
                if taken & its and other not in gets:
                    gets[other] = giver
                    reached.append(other)
        users = 0
        for it in reached:
            users |= self._users[it]
        # All of these that are there have been taken for the wants that were reached.
        return Lack(users, sum(self._counts[it] for it in reached))

    def _exchange(self, giver: int, spare: int, gets: Mapping[int, int | None]) -> None:
        getter = gets[giver]
        if getter is None:  # nobody has to give anything
            self._fill(giver, spare)
            return
        self._taken[giver] |= _lowest(spare)
        while getter is not None:
            given = _lowest(self._taken[giver] & self._users[getter])
            self._taken[giver] ^= given
            self._taken[getter] |= given
            giver, getter = getter, gets[getter]
        self._left[giver] -= 1

    def _fill(self, want: int, spare: int) -> None:
        while spare and self._left[want]:
            are_few = spare.bit_count() <= self._left[want]
            those = spare if are_few else _lowest(spare)
            spare ^= those
            self._taken[want] |= those
            self._left[want] -= those.bit_count()


def _lowest(users: int) -> int:
    return users & -users
