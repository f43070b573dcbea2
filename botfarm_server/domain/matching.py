"""Which users meet which wants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from botfarm_server.domain.models import Candidate, Pool, UserId, Want


def matches(want: Want, user: Candidate) -> bool:
    """Whether `user` meets `want`; labels match by equality on any subset."""
    return (
        user.env == want.env
        and user.domain == want.domain
        and (want.project_id is None or user.project_id == want.project_id)
        and (want.user_id is None or user.id == want.user_id)
        and want.labels.items() <= user.labels.items()
    )


class Group:
    """Users, in order, of whom those that have labels or meet a want are found at once.

    However many there are, a want costs a step for each of its labels: a number stands
    for some of the users, with a bit for each.
    """

    def __init__(self, users: Sequence[Candidate]) -> None:
        self._users = users
        self._every = (1 << len(users)) - 1
        self._with: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._of_pool: defaultdict[Pool, int] = defaultdict(int)
        self._of_project: defaultdict[UUID | None, int] = defaultdict(int)
        self._with_id: defaultdict[UserId, int] = defaultdict(int)
        for place, user in enumerate(users):
            for label in user.labels.items():
                self._with[label] |= 1 << place
            self._of_pool[user.pool] |= 1 << place
            self._of_project[user.project_id] |= 1 << place
            self._with_id[user.id] |= 1 << place

    def meeting(self, want: Want) -> int:
        """Those that `matches` finds to meet the want."""
        those = self.having(want.labels) & self._of_pool.get(want.pool, 0)
        if want.project_id is not None:
            those &= self._of_project.get(want.project_id, 0)
        if want.user_id is not None:
            those &= self._with_id.get(want.user_id, 0)
        return those

    def those(self, users: Iterable[Candidate]) -> int:
        """The same users as one number."""
        those = 0
        for user in users:
            those |= self._with_id[user.id]
        return those

    def having(self, labels: Mapping[str, str]) -> int:
        """Those that have all the labels."""
        those = self._every
        for label in labels.items():
            those &= self._with.get(label, 0)
        return those

    def first(self, those: int, limit: int) -> int:
        """The first of them, at most `limit`."""
        if those.bit_count() <= limit:
            return those
        lowest, highest = 0, len(self._users)
        while lowest < highest:
            middle = (lowest + highest) // 2
            if (those & ((1 << middle) - 1)).bit_count() < limit:
                lowest = middle + 1
            else:
                highest = middle
        return those & ((1 << lowest) - 1)

    def users(self, those: int) -> list[Candidate]:
        return [user for place, user in enumerate(self._users) if those >> place & 1]


def alike(wants: Sequence[Want]) -> Hashable:
    """A key that wants have in common which ask for the same."""
    return tuple(
        (
            want.pool,
            want.project_id,
            want.user_id,
            want.count,
            tuple(sorted(want.labels.items())),
        )
        for want in wants
    )


@dataclass(frozen=True, slots=True)
class Assignment:
    """For each user taken, the index of the want that it meets."""

    taken: Mapping[UserId, int]
    complete: bool


def assign(wants: Sequence[Want], users: Sequence[Candidate]) -> Assignment:
    """Meet as many of `wants` as possible, each with `count` users of its own.

    Two wants of one lease may compete for a user that both match, so this is a maximum
    bipartite matching by augmenting paths: it is complete whenever any complete
    assignment exists. Of all such assignments it is the one with the users that come
    first in the order given.
    """
    places = _Places(wants)
    hopeless: set[Kind] = set()
    for user in users:
        if not places.are_left:
            break
        kind = tuple(index for index, want in enumerate(wants) if matches(want, user))
        # For whom there is no place now, there is none later: nobody loses one.
        if kind not in hopeless and not places.find_for(user.id, kind):
            hopeless.add(kind)
    want_of = places.want_of()
    taken = {user.id: want_of[user.id] for user in users if user.id in want_of}
    return Assignment(taken, complete=not places.are_left)


Kind = tuple[int, ...]
"""The indexes of the wants that a user meets: users of one kind can change places."""


class _Places:
    """The places that wants have for users, and who has them."""

    def __init__(self, wants: Sequence[Want]) -> None:
        self._left = [want.count for want in wants]
        self._users: list[dict[Kind, list[UserId]]] = [{} for _ in wants]

    @property
    def are_left(self) -> bool:
        return any(self._left)

    def want_of(self) -> dict[UserId, int]:
        return {
            user_id: want
            for want, kinds in enumerate(self._users)
            for user_ids in kinds.values()
            for user_id in user_ids
        }

    def find_for(self, user_id: UserId, kind: Kind) -> bool:
        """Give a user a place, for which others may move to another want; was there?"""
        # How each want is reached: who moves there, and from which want.
        came: dict[int, tuple[Kind, int | None]] = dict.fromkeys(kind, (kind, None))
        reached = list(kind)
        for want in reached:  # it grows while we go through it
            if self._left[want]:
                self._move_up(want, came, user_id)
                return True
            for other, user_ids in self._users[want].items():
                for beyond in other:
                    if user_ids and beyond not in came:
                        came[beyond] = (other, want)
                        reached.append(beyond)
        return False

    def _move_up(
        self,
        want: int,
        came: Mapping[int, tuple[Kind, int | None]],
        user_id: UserId,
    ) -> None:
        self._left[want] -= 1
        kind, before = came[want]
        while before is not None:
            moved = self._users[before][kind].pop()
            self._users[want].setdefault(kind, []).append(moved)
            want = before
            kind, before = came[want]
        self._users[want].setdefault(kind, []).append(user_id)
