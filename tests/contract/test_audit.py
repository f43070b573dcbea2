"""The audit log and the changes that it tells of, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from botfarm_server.domain.access import BOOTSTRAP, Caller
from botfarm_server.domain.audit import AuditEvent, AuditFilter
from botfarm_server.domain.errors import DatabaseUnavailableError, UserLockedError
from botfarm_server.domain.models import TokenId, User
from botfarm_server.services import users

from .conftest import Farm
from .test_quarantine import fail, ruled

pytestmark = pytest.mark.anyio


async def events(farm: Farm) -> list[AuditEvent]:
    """The oldest first."""
    return (await farm.audit.find(AuditFilter(), before=None, limit=1000))[::-1]


async def actions(farm: Farm) -> list[str]:
    return [event.action for event in await events(farm)]


@asynccontextmanager
async def without(farm: Farm, table: str) -> AsyncIterator[None]:
    """Let whatever needs a table fail."""

    async def rename(before: str, after: str) -> None:
        async with farm.database.write() as connection:
            await connection.execute(text(f"ALTER TABLE {before} RENAME TO {after}"))

    await rename(table, "away")
    try:
        yield
    finally:
        await rename("away", table)


SUITE = Caller("lease", TokenId(uuid.UUID(int=1)), kind="token")
CHANGES: dict[str, Callable[[Farm, User], Awaitable[object]]] = {
    "update": lambda farm, user: farm.users.change(user.id, {"domain": "canary"}),
    "remove": lambda farm, user: farm.users.remove(user.id),
    "quarantine": lambda farm, user: farm.users.quarantine(user.id, "locked out"),
    "create": lambda farm, _: farm.add_user("bob"),
    "token": lambda farm, _: farm.tokens.create(BOOTSTRAP, "ci", "lease"),
}


async def test_a_change_and_its_event_are_there_together_or_not_at_all(
    farm: Farm,
) -> None:
    """Whichever of them fails, and what is refused leaves no event."""
    alice = await farm.add_user("alice")
    failures = (ProgrammingError, DatabaseUnavailableError)
    for change in CHANGES.values():
        async with without(farm, "audit_events"):
            with pytest.raises(failures):
                await change(farm, alice)
    for name in ("update", "quarantine", "create"):
        # The hand-on comes after the event, in the same transaction.
        async with without(farm, "queue_entries"):
            with pytest.raises(failures):
                await CHANGES[name](farm, alice)
    assert await farm.users.find() == [alice]
    assert await farm.tokens.find(BOOTSTRAP) == []
    await farm.held()
    with pytest.raises(UserLockedError):
        await farm.users.remove(alice.id)
    assert await actions(farm) == ["user.create"]


async def test_what_leaves_a_user_as_it_is_is_told_nowhere_and_moves_nobody(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = await farm.add_user("alice", labels={"role": "admin"})
    bob = await farm.add_user("bob")
    await farm.users.quarantine(bob.id, "locked out", "carol")
    before = await farm.users.find(), await events(farm)

    async def handed_on(*_: object, **__: object) -> dict[object, object]:
        raise AssertionError("nothing is to be handed on")

    monkeypatch.setattr(users, "hand_on", handed_on)
    capsys.readouterr()
    await farm.users.change(alice.id, {"labels": {"role": "admin"}})
    await farm.users.change(alice.id, {"domain": "regular", "project_id": None})
    await farm.users.restore(alice.id, "it was the deployment", "carol")
    await farm.users.quarantine(bob.id, "locked out", "carol")
    await farm.users.quarantine(bob.id, "locked out again", "carol", SUITE)
    assert (await farm.users.find(), await events(farm)) == before
    assert capsys.readouterr() == ("", "")


async def test_a_suite_s_quarantine_keeps_its_first_reason_unless_an_admin_has_another(
    farm: Farm,
) -> None:
    alice = await farm.add_user("alice")
    for number in range(3):
        user = await farm.users.quarantine(alice.id, f"reason {number}", by=SUITE)
        assert user.quarantine_reason == "reason 0"
    user = await farm.users.quarantine(alice.id, "a look", "carol")
    assert (user.quarantine_reason, user.quarantined_by) == ("a look", "carol")
    await farm.users.quarantine(alice.id, "reason 4", by=SUITE)
    told = [event.after for event in (await events(farm))[1:]]
    assert told == [
        {"quarantine_reason": "reason 0"},
        {"quarantine_reason": "a look", "quarantined_by": "carol"},
    ]


async def test_of_two_that_revoke_a_token_at_once_one_has_done_it(farm: Farm) -> None:
    made = await farm.tokens.create(BOOTSTRAP, "ci", "lease")
    revoking = (farm.tokens.revoke(BOOTSTRAP, made.token.id) for _ in range(2))
    await asyncio.gather(*revoking)
    assert await actions(farm) == ["token.create", "token.revoke"]


async def test_what_the_server_does_by_itself_has_its_name(farm: Farm) -> None:
    """A quarantine after failures; and what a pool file no longer lists."""
    ruled(farm, quarantine_after=1)
    await farm.add_user("alice")
    held = await farm.held()
    await farm.add_user("bob")
    await farm.users.retain_only([("stage", "bob")])
    await farm.users.retain_only([("stage", "bob"), ("stage", "alice")])
    await farm.release(held)
    await farm.users.retain_only([("stage", "bob")])
    await fail(farm, "test_a")
    told = [
        (event.action, event.caller, event.subject, event.after)
        for event in (await events(farm))[2:]
    ]
    listed, failed = "no longer in the pool file", "1 tests failed in a row: test_a"
    aside = {"quarantine_reason": listed, "quarantined_by": "botfarm"}
    assert told == [
        ("user.quarantine", "pool_file", "alice", aside),
        ("user.restore", "pool_file", "alice", dict.fromkeys(aside)),
        ("user.delete", "pool_file", "alice", None),
        ("user.quarantine", "botfarm", "bob", {**aside, "quarantine_reason": failed}),
    ]


async def test_events_are_kept_for_as_long_as_is_said(farm: Farm) -> None:
    await farm.add_user()
    await farm.expiry.forget()
    assert await actions(farm) == ["user.create"]
    farm.expiry.audit_retention = timedelta(days=-1)
    await farm.expiry.forget()
    assert await actions(farm) == []
