"""How people are told who has the accounts that a test waits for."""

from __future__ import annotations

from collections.abc import Sequence

from .models import Blocker, Holder, Want


def timeout_message(
    wants: Sequence[Want],
    waited: float,
    blockers: Sequence[Blocker],
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
    if blockers:
        lines.append("Held at present:")
        lines += [
            f"  {blocker.login}: {_how_held(blocker, is_own=blocker in own)}"
            for blocker in blockers
        ]
    else:
        lines.append("Others wait for the same accounts, or they rest after a crash.")
    if own:
        count = len(own) + sum(want.count for want in wants)
        lines.append(
            "A test that needs several accounts asks for all at once: with "
            f"@pytest.mark.bot_user(count={count}) or a mark for each."
        )
    if any(blocker.kept for blocker in blockers):
        lines.append("`botfarm leases break` gives back an account that is kept.")
    lines.append(f"{advice}, add accounts to the pool, or run fewer workers.")
    return "\n".join(lines)


def how_kept(blocker: Blocker) -> str | None:
    """For how long a person may look at the account; None if a test has it."""
    if not blocker.kept or blocker.expires_in is None:
        return None
    minutes = blocker.expires_in / 60
    return f"kept to be looked at, {minutes:.0f} min more, after {blocker.holder}"


def _how_held(blocker: Blocker, *, is_own: bool) -> str:
    if kept := how_kept(blocker):
        return kept
    holder = "this test itself" if is_own else str(blocker.holder)
    return f"for {blocker.held_for:.0f} s by {holder}"
