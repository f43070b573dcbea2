"""How people are told who has the accounts they wait for, or why none is free."""

from __future__ import annotations

from collections.abc import Sequence

from .models import Blocker, Holder, Matching, Quarantined, Want

LONGEST_REASON = 100
"""Characters of a quarantine's reason that a message tells."""


def timeout_message(
    wants: Sequence[Want],
    waited: float,
    blockers: Sequence[Blocker],
    matching: Matching | None,
    asker: Holder | None,
    advice: str,
) -> str:
    """Who is in the way of a test that got no account in time, and what to do."""
    own = [
        blocker
        for blocker in blockers
        if asker is not None and asker.is_same_test(blocker.holder) and not blocker.kept
    ]
    wanted = " and ".join(str(want) for want in wants)
    lines = [f"No account became free within {waited:.0f} s for {wanted}."]
    if matching is not None:
        lines.append(_counted(matching))
    if blockers:
        lines.append("Held at present:")
        lines += [
            f"  {blocker.login}: {_how_held(blocker, is_own=blocker in own)}"
            for blocker in blockers
        ]
    elif matching is None:
        lines.append("Others wait for the same accounts, or they rest after a crash.")
    if matching is not None and matching.quarantined.count:
        lines.append(_who_is_quarantined(matching.quarantined))
    if own:
        count = len(own) + sum(want.count for want in wants)
        lines.append(
            "A test that needs several accounts asks for all at once: with "
            f"@pytest.mark.bot_user(count={count}) or a mark for each."
        )
    if any(blocker.kept for blocker in blockers):
        lines.append("`botfarm leases break` gives back an account that is kept.")
    return "\n".join([*lines, advice])


def how_kept(blocker: Blocker) -> str | None:
    """For how long a person may look at the account; None if a test has it."""
    if not blocker.kept or blocker.expires_in is None:
        return None
    minutes = blocker.expires_in / 60
    return f"kept to be looked at, {minutes:.0f} min more, after {blocker.holder}"


def held_by_none(matching: Matching) -> list[str]:
    """Why nobody gets those accounts that match and that nobody holds."""
    counts = (
        (matching.free, "free (too few, or for those who wait before)"),
        (matching.resting, "resting"),
        (matching.quarantined.count, "in quarantine"),
    )
    return [f"{number} {how}" for number, how in counts if number]


def _counted(matching: Matching) -> str:
    parts = [f"{matching.held} held"] if matching.held else []
    parts += held_by_none(matching)
    verb = "account matches" if matching.count == 1 else "accounts match"
    return f"{matching.count} {verb}: {', '.join(parts)}."


def _how_held(blocker: Blocker, *, is_own: bool) -> str:
    if kept := how_kept(blocker):
        return kept
    holder = "this test itself" if is_own else str(blocker.holder)
    return f"for {blocker.held_for:.0f} s by {holder}"


def _who_is_quarantined(quarantined: Quarantined) -> str:
    named = [f"{login} ({_short(it)})" for login, it in quarantined.first.items()]
    if more := quarantined.count - len(named):
        named.append(f"{more} more")
    return (
        f"In quarantine: {', '.join(named)}. Bring one back with `botfarm users "
        "restore LOGIN`, which takes `--pool FILE` for accounts of a pool file."
    )


def _short(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"
