"""Which users meet which wants."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from botfarm_server.domain.models import Candidate, UserId, Want


def matches(want: Want, user: Candidate) -> bool:
    """Whether `user` meets `want`; labels match by equality on any subset."""
    return (
        user.env == want.env
        and user.domain == want.domain
        and (want.project_id is None or user.project_id == want.project_id)
        and (want.user_id is None or user.id == want.user_id)
        and all(user.labels.get(name) == value for name, value in want.labels.items())
    )


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

    Users are preferred in the order given. Two wants of one lease may compete for a
    user that both match, so this is a maximum bipartite matching (Kuhn's augmenting
    paths): it is complete whenever any complete assignment exists.
    """
    slots = [index for index, want in enumerate(wants) for _ in range(want.count)]
    options = [
        [position for position, user in enumerate(users) if matches(want, user)]
        for want in wants
    ]
    slot_of: dict[int, int] = {}

    def place(slot: int, tried: set[int]) -> bool:
        for position in options[slots[slot]]:
            if position in tried:
                continue
            tried.add(position)
            if position not in slot_of or place(slot_of[position], tried):
                slot_of[position] = slot
                return True
        return False

    placed = [place(slot, set()) for slot in range(len(slots))]
    taken = {
        users[position].id: slots[slot] for position, slot in sorted(slot_of.items())
    }
    return Assignment(taken=taken, complete=all(placed))
