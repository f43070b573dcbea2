"""How messages name what they are about."""

from __future__ import annotations

from collections.abc import Sequence

from botfarm_server.domain.models import Holder, KnotMember, Quarantined, Want

LONGEST_REASON = 100
"""Characters of a quarantine's reason that a message tells; a listing has it all."""


def describe_want(want: Want) -> str:
    """`2 × stage/regular with role=admin`, as a message names a want."""
    text = f"{want.env}/{want.domain}"
    if want.count > 1:
        text = f"{want.count} × {text}"
    if want.labels:
        pairs = ", ".join(f"{name}={text}" for name, text in want.labels.items())
        text = f"{text} with {pairs}"
    if want.project_id is not None:
        text = f"{text} of project {want.project_id}"
    return text


def describe_holder(holder: Holder) -> str:
    """`tests/test_a.py::test_b on gw0`, as a message names a holder."""
    parts = [holder.test_id or "an unnamed holder"]
    if holder.worker_id:
        parts.append(f"on {holder.worker_id}")
    if holder.host:
        parts.append(f"at {holder.host}")
    if holder.run_id:
        parts.append(f"in run {holder.run_id}")
    return " ".join(parts)


def describe_member(member: KnotMember) -> str:
    """What a waiter of a knot has, and what it waits for."""
    holder = Holder(member.run_id, member.worker_id, member.test_id, member.host)
    leased_for = member.leased_for or [None] * len(member.has)
    has = ", ".join(
        login if whose in {None, member.test_id} else f"{login} (leased for {whose})"
        for login, whose in zip(member.has, leased_for, strict=True)
    )
    waits_for = " and ".join(member.waits_for)
    return f"{describe_holder(holder)} has {has} and waits for {waits_for}"


def describe_quarantined(quarantined: Quarantined) -> str:
    """Who only a quarantine keeps from those who ask, and the way back."""
    named = [f"{it.login} ({_shortened(it.reason)})" for it in quarantined.first]
    if more := quarantined.count - len(named):
        named.append(f"{more} more")
    verbs = ("is", "matches") if quarantined.count == 1 else ("are", "match")
    return (
        f"In quarantine {verbs[0]} {quarantined.count} that {verbs[1]}: "
        f"{_listed(named)}. Bring one back with `botfarm users restore LOGIN`, which "
        "takes `--pool FILE` for accounts of a pool file."
    )


def counted(number: int, noun: str) -> str:
    """`1 user`, `2 users`."""
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 1]}…"


def _listed(parts: Sequence[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last
