"""`botfarm tokens create|list|revoke` against a real server."""

from __future__ import annotations

import asyncio
import os
import uuid

import pytest

from botfarm_server.cli import schema
from botfarm_server.domain.audit import AuditEvent, AuditFilter
from botfarm_server.services.audit import AuditService
from botfarm_server.store.dialects import database_url
from botfarm_server.store.engine import Database

from .conftest import Botfarm, Farm


def test_a_token_is_made_listed_used_and_revoked(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = str(uuid.uuid4())
    given = ("--role", "read", "--project-id", project, "--expires-in", "90d")
    made = botfarm("tokens", "create", "dashboard", *given)
    token = made.out.strip()
    assert token.startswith("bf_read_")
    token_id = made.err.split()[2]
    assert (made.exit_code, token in made.err) == (0, False)
    listed = botfarm("tokens", "list")
    for told in (token_id[:8], "dashboard", "read", project[:8], "never"):
        assert told in listed.out
    assert token not in listed.out
    refused = botfarm("tokens", "create", "x", "--expires-in", "90")
    assert (refused.exit_code, "90d or 12h" in refused.err) == (2, True)
    with monkeypatch.context() as environment:
        environment.setenv("BOTFARM_TOKEN", token)
        assert botfarm("users", "list").exit_code == 0
        forbidden = botfarm("tokens", "list")
        assert (forbidden.exit_code, "role admin" in forbidden.err) == (1, True)
        environment.setenv("BOTFARM_TOKEN", token[:-1])
        mistyped = botfarm("users", "list")
        assert "BOTFARM_TOKEN: The token is mistyped" in mistyped.err
    unknown = botfarm("tokens", "revoke", "no-such-id")
    assert (unknown.exit_code, "No tokens have" in unknown.err) == (1, True)
    assert botfarm("tokens", "revoke", token_id[:8]).exit_code == 0
    assert "revoked" in botfarm("tokens", "list").out
    monkeypatch.setenv("BOTFARM_TOKEN", token)
    assert "was revoked" in botfarm("users", "list").err


async def audited(url: str) -> list[AuditEvent]:
    database = Database(database_url(url), pool_size=2)
    try:
        return await AuditService(database).find(AuditFilter(), before=None, limit=9)
    finally:
        await database.dispose()


def test_the_first_token_is_made_in_the_database_itself(
    empty_database: None, botfarm: Botfarm
) -> None:
    url = os.environ["DATABASE_URL"]
    arguments = ("tokens", "create", "ops", "--role", "admin", "--database-url")
    early = botfarm(*arguments, url)
    assert (early.exit_code, "botfarm db upgrade" in early.err) == (1, True)
    assert not schema.has_tokens(url)
    botfarm("db", "upgrade")
    assert not schema.has_tokens(url)
    made = botfarm(*arguments, url)
    assert (made.exit_code, made.out.startswith("bf_admin_")) == (0, True)
    assert made.out.count("\n") == 1
    assert schema.has_tokens(url)
    [event] = asyncio.run(audited(url))
    assert (event.action, event.caller, event.subject) == (
        ("token.create", "command_line", "ops")
    )
    assert event.name is not None
    assert "@" in event.name
    wrong = botfarm(*arguments, "mysql://x")
    assert (wrong.exit_code, "--database-url" in wrong.err) == (2, True)
    assert botfarm(*arguments[:2], "", *arguments[3:], url).exit_code == 2
