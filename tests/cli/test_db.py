"""`botfarm db upgrade|check` over both databases, and when there is none."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from botfarm_server.store.migrations import HEAD

from .conftest import Botfarm


def test_check_names_the_command_that_makes_the_schema(
    empty_database: None, botfarm: Botfarm
) -> None:
    ran = botfarm("db", "check")
    assert ran.exit_code == 1
    assert f"without a schema, and this version needs revision {HEAD}" in ran.err
    assert "Run `botfarm db upgrade`." in ran.err
    ran = botfarm("db", "upgrade")
    assert ran.exit_code == 0, ran.err
    assert f"is at revision {HEAD} now; it was without a schema." in ran.err
    ran = botfarm("db", "check")
    assert ran.exit_code == 0
    assert f"is at revision {HEAD}, as this version needs it." in ran.err
    ran = botfarm("db", "upgrade")
    assert ran.exit_code == 0
    assert f"is at revision {HEAD} already." in ran.err
    assert "s3cret" not in ran.err


def test_check_leaves_no_file_behind(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/sub/farm.sqlite3")
    assert botfarm("db", "check").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_later_revision_asks_for_the_version_that_made_it(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "farm.sqlite3"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    assert botfarm("db", "upgrade").exit_code == 0
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
    connection.close()
    ran = botfarm("db", "check")
    assert ran.exit_code == 1
    assert "is at revision later" in ran.err
    assert "install the version of pytest-botfarm it is of" in ran.err
    ran = botfarm("db", "upgrade")
    assert ran.exit_code == 1
    assert "another version" in ran.err


@pytest.mark.parametrize("command", ["upgrade", "check"])
@pytest.mark.parametrize(
    "place",
    [
        ("postgresql://me:s3cret@127.0.0.1:1/farm", "'farm' at 127.0.0.1:1"),
        ("postgresql://me:s3cret@nowhere.invalid/farm", "'farm' at nowhere.invalid"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_sentence(
    command: str,
    place: tuple[str, str],
    environment: None,
    botfarm: Botfarm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, told = place
    monkeypatch.setenv("DATABASE_URL", url)
    ran = botfarm("db", command)
    assert ran.exit_code == 1
    assert f"The PostgreSQL database {told} cannot be used: " in ran.err
    assert "Check DATABASE_URL" in ran.err
    assert "s3cret" not in ran.err


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_a_name_that_postgresql_refuses_is_a_sentence(
    command: str,
    empty_postgresql: str,
    botfarm: Botfarm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = empty_postgresql.replace("/test_", "/missing_")
    monkeypatch.setenv("DATABASE_URL", missing)
    ran = botfarm("db", command)
    assert ran.exit_code == 1
    assert "cannot be used: it refuses the connection" in ran.err
    assert "does not exist" in ran.err


@pytest.mark.parametrize("command", ["upgrade", "check"])
def test_a_file_that_is_no_database_is_a_sentence(
    command: str,
    environment: None,
    botfarm: Botfarm,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "farm.sqlite3"
    path.write_text("this is no database, " * 100)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    ran = botfarm("db", command)
    assert ran.exit_code == 1
    assert f"The SQLite database {path} cannot be used: " in ran.err


def test_a_directory_that_cannot_be_made_is_a_sentence(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/file/farm.sqlite3")
    ran = botfarm("db", "upgrade")
    assert ran.exit_code == 1
    assert "cannot be used: " in ran.err


def test_upgrade_makes_the_directories_of_a_sqlite_file(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "var" / "lib" / "farm.sqlite3"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    assert botfarm("db", "upgrade").exit_code == 0
    assert path.exists()


def test_a_wrong_setting_is_wrong_use(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:s3cret@localhost/farm")
    ran = botfarm("db", "check")
    assert ran.exit_code == 2
    assert "DATABASE_URL is wrong" in ran.err
    assert "s3cret" not in ran.err


def test_a_restored_database_gives_out_higher_fences_and_lets_its_users_rest(
    empty_database: None, botfarm: Botfarm
) -> None:
    ran = botfarm("db", "after-restore")
    assert ran.exit_code == 1
    assert "Run `botfarm db upgrade`" in ran.err
    assert botfarm("db", "upgrade").exit_code == 0
    database = ("--database-url", os.environ["DATABASE_URL"])
    for name in ("ops", "shop"):
        assert botfarm("tokens", "create", name, *database).exit_code == 0
    ran = botfarm("db", "after-restore", "--rest", "90")
    assert ran.exit_code == 0, ran.err
    assert "fences go on above all that were given out before" in ran.err
    assert "every user rests for 90 s" in ran.err
    assert "Tokens that were revoked since the backup are valid again" in ran.err
    assert "Passwords are those of the backup" in ran.err
    for revoked in (2, 0):
        ran = botfarm("db", "after-restore", "--revoke-tokens")
        assert f"Tokens revoked: {revoked}. `botfarm tokens create`" in ran.err
