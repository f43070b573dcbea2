"""What a deployment may set, and how a mistake is told."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from botfarm_server.settings import (
    Settings,
    SettingsError,
    environment_name,
    fixed_settings,
    load_settings,
    misspelt,
)
from botfarm_server.store.dialects import database_url, listening_dsn


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_serve_one_machine() -> None:
    settings = load_settings()
    assert settings.host == "127.0.0.1"
    assert settings.database_url == "sqlite:///botfarm.sqlite3"
    assert settings.envs == ("prod", "preprod", "stage")


@pytest.mark.parametrize("name", ["DATABASE_URL", "BOTFARM_DATABASE_URL"])
def test_the_database_has_two_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "postgresql://h/d")
    assert load_settings().database_url == "postgresql://h/d"


def test_a_dotenv_file_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("BOTFARM_PORT=1\nLOG_LEVEL=debug\nOTHER=x\n")
    monkeypatch.setenv("BOTFARM_PORT", "2")
    settings = load_settings({"host": "::1"})
    assert (settings.port, settings.log_level, settings.host) == (2, "DEBUG", "::1")


def test_an_embedded_server_reads_neither_the_environment_nor_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("BOTFARM_LOCK_DELAY=3\n")
    monkeypatch.setenv("BOTFARM_COOLDOWN", "3")
    read, settings = load_settings(), fixed_settings({})
    assert (read.lock_delay, read.cooldown) == (3, 3)
    assert (settings.lock_delay, settings.cooldown) == (15, 0)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTFARM_ENVS", "blue, green ,")
    assert load_settings().envs == ("blue", "green")


@pytest.mark.parametrize("name", ["BOTFARM_METRICS", "BOTFARM_PAGES", "BOTFARM_BOARD"])
def test_who_closes_what_is_for_readers_is_understood_or_shown_how(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And never how to open it to everybody."""
    field = name.removeprefix("BOTFARM_").lower()
    for given, understood in (("OFF", "off"), (" off ", "off"), ("Token", "token")):
        monkeypatch.setenv(name, given)
        assert getattr(load_settings(), field) == understood
    for given in ("no", "0", "false", "none"):
        monkeypatch.setenv(name, given)
        with pytest.raises(SettingsError) as caught:
            load_settings()
        assert str(caught.value).endswith(f"Example: {name}=off")


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("BOTFARM_PORT", "many", "valid integer"),
        ("BOTFARM_PORT", "70000", "less than or equal to 65535"),
        ("DATABASE_URL", "mysql://h/d", "neither postgresql nor sqlite"),
        ("DATABASE_URL", "nonsense", "not a database URL"),
        ("DATABASE_URL", "sqlite://", "SQLite needs a file"),
        ("LOG_LEVEL", "LOUD", "'DEBUG'"),
        ("BOTFARM_ENVS", ",", "at least one name"),
        ("BOTFARM_SECRET_KEYS", "c2hvcnQ=", "32 random bytes in base64"),
        ("BOTFARM_SECRET_KEYS", "not base64!", "32 random bytes in base64"),
        ("BOTFARM_SECRET_KEYS_FILE", "no-such-file", "cannot be read (No such"),
        ("BOTFARM_SECRET_KEYS_FILE", "/dev/null", "holds no key"),
        ("BOTFARM_SECRET_KEYS_FILE", __file__, "32 random bytes in base64"),
        ("BOTFARM_BOOTSTRAP_TOKEN", "short", "at least 16 printable ASCII"),
        ("BOTFARM_BOOTSTRAP_TOKEN_FILE", "no-such-file", "cannot be read (No such"),
        ("BOTFARM_BOOTSTRAP_TOKEN_FILE", __file__, "at least 16 printable ASCII"),
        ("BOTFARM_BOOTSTRAP_TOKEN", "a token with spaces", "without a space"),
        ("BOTFARM_BOOTSTRAP_TOKEN", "bf_admin_0123456789", "cut off or mistyped"),
        ("BOTFARM_CORS_ORIGINS", "*", "scheme and a host"),
        ("BOTFARM_CORS_ORIGINS", "https://farm.example.com/", "scheme and a host"),
        ("BOTFARM_ALLOWED_HOSTS", "https://farm.example.com", "without scheme"),
        ("BOTFARM_TRUSTED_PROXIES", "proxy.local", "an IPv4 or IPv6 network"),
        ("BOTFARM_RETENTION_DAYS", "1e308", "less than or equal to 36500"),
        ("BOTFARM_BCRYPT_COST", "3", "greater than or equal to 4"),
    ],
)
def test_a_wrong_setting_is_one_line_with_name_reason_and_example(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, said: str
) -> None:
    monkeypatch.setenv(name, given)
    with pytest.raises(SettingsError) as error:
        load_settings()
    message = str(error.value)
    assert message.startswith(f"{name} is wrong: ")
    assert said in message
    assert f"Example: {name}=" in message
    assert "\n" not in message
    if name in {"BOTFARM_SECRET_KEYS", "BOTFARM_BOOTSTRAP_TOKEN"}:
        assert given not in message


def test_the_bootstrap_token_comes_from_the_variable_or_else_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("a-token-that-is-in-a-file\n")
    assert load_settings().admin_token() is None
    monkeypatch.setenv("BOTFARM_BOOTSTRAP_TOKEN_FILE", str(path))
    assert load_settings().admin_token() == "a-token-that-is-in-a-file"
    monkeypatch.setenv("BOTFARM_BOOTSTRAP_TOKEN", "a-token-of-the-environment")
    assert load_settings().admin_token() == "a-token-of-the-environment"


def test_sealing_keys_come_from_the_variable_or_else_from_the_lines_of_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newest, old, other = (
        base64.b64encode(it * 32).decode() for it in (b"n", b"o", b"x")
    )
    path = tmp_path / "keys"
    path.write_text(f"{newest}\n{old}\n")
    monkeypatch.setenv("BOTFARM_SECRET_KEYS_FILE", str(path))
    assert load_settings().sealing_keys() == (b"n" * 32, b"o" * 32)
    monkeypatch.setenv("BOTFARM_SECRET_KEYS", other)
    assert load_settings().sealing_keys() == (b"x" * 32,)


def test_a_misspelt_setting_is_noticed_and_a_name_of_the_plugin_is_none() -> None:
    found = misspelt(
        {
            "BOTFARM_BCRYP_COST": "4",
            "BOTFARM_SECRET_KEY": "k",
            "BOTFARM_MAX_WAITING": "9",
            "DATABASE_URL": "sqlite:///x",
            "BOTFARM_ENV": "stage",
            "BOTFARM_DOMAIN": "regular",
            "BOTFARM_URL": "http://localhost",
            "BOTFARM_POOL": "botfarm.toml",
            "BOTFARM_TOKEN_FILE": "token",
            "BOTFARM_STATE_DIR": "state",
        }
    )
    assert found == {
        "BOTFARM_BCRYP_COST": "BOTFARM_BCRYPT_COST",
        "BOTFARM_SECRET_KEY": "BOTFARM_SECRET_KEYS",
    }


def test_every_setting_has_a_description_and_an_example() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.examples, name
        assert environment_name(name).isupper()


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres://u:p@h:5432/d?ssl=require", "postgresql+asyncpg"),
        ("postgresql://h/d", "postgresql+asyncpg"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg"),
        ("sqlite:///farm.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////tmp/farm.db", "sqlite+aiosqlite"),
    ],
)
def test_database_urls_get_the_driver_that_the_server_uses(
    given: str, driver: str
) -> None:
    assert database_url(given).drivername == driver


def test_tls_is_asked_for_in_either_form() -> None:
    url = database_url("postgres://u:p@h/d?sslmode=require")
    assert dict(url.query) == {"ssl": "require"}
    assert listening_dsn(url) == "postgresql://u:p@h/d?sslmode=require"
    tuned = database_url("postgresql+asyncpg://h/d?prepared_statement_cache_size=0")
    assert listening_dsn(tuned) == "postgresql://h/d"
