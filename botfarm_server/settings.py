"""What a deployment may set, from the environment and a `.env` file.

Importing this module reads nothing: `load_settings` does. Only the composition roots
call it: the app, the command line and the migrations.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from botfarm_server.domain.tokens import is_mistyped
from botfarm_server.store.dialects import database_url

SECRET_KEY_BYTES = 32
ALIKE = 0.85
"""How much of a name, as difflib counts it, makes it another one misspelt."""

ORIGIN = re.compile(r"https?://[^\s*/@]+")
HOST = re.compile(r"(\*\.)?[\w.-]+|[0-9A-Fa-f:]+")

OF_SUITES = frozenset({"BOTFARM_ENV", "BOTFARM_DOMAIN"})
"""What a suite asks for. It looks like a setting's name, and is none."""

Names = Annotated[tuple[str, ...], NoDecode]
Readers = Literal["token", "public", "off"]
"""Of what is no call of the API."""


class SettingsError(Exception):
    """A setting is wrong. The message is one line that a person can act on."""


class Settings(BaseSettings):
    """Each field is read from `BOTFARM_<NAME>`, and from its alias where it has one."""

    model_config = SettingsConfigDict(
        env_prefix="BOTFARM_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    database_url: str = Field(
        default="sqlite:///botfarm.sqlite3",
        validation_alias=AliasChoices("BOTFARM_DATABASE_URL", "DATABASE_URL"),
        description="PostgreSQL or SQLite database.",
        examples=["postgresql://botfarm:password@localhost/botfarm"],
    )
    project_name: str = Field(
        default="Botfarm",
        validation_alias=AliasChoices("BOTFARM_PROJECT_NAME", "PROJECT_NAME"),
        description="Title of the API's documentation.",
        examples=["Botfarm"],
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        validation_alias=AliasChoices("BOTFARM_LOG_LEVEL", "LOG_LEVEL"),
        description="Least severe event that is logged.",
        examples=["INFO"],
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="`auto` is text on a terminal and JSON elsewhere.",
        examples=["json"],
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; beyond loopback a token is needed.",
        examples=["0.0.0.0"],
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on.", examples=[8000]
    )
    ssl_certfile: Path | None = Field(
        default=None,
        description="Certificate of the server, with its chain; it speaks https then.",
        examples=["/etc/botfarm/server.pem"],
    )
    ssl_keyfile: Path | None = Field(
        default=None,
        description="Private key of the certificate, unless that file has it.",
        examples=["/etc/botfarm/server.key"],
    )
    ssl_keyfile_password: SecretStr | None = Field(
        default=None,
        description="Password of the private key.",
        examples=["<the password>"],
    )
    ssl_ca_certs: Path | None = Field(
        default=None,
        description="Authorities of clients; who has no certificate of theirs is "
        "refused.",
        examples=["/etc/botfarm/clients.pem"],
    )
    envs: Names = Field(
        default=("prod", "preprod", "stage"),
        description="The envs that users may have, separated by commas.",
        examples=["prod,preprod,stage"],
    )
    domains: Names = Field(
        default=("canary", "regular"),
        description="The domains that users may have, separated by commas.",
        examples=["canary,regular"],
    )
    secret_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Sealing keys, 32 random bytes each in base64, newest first. "
        "Without one, passwords are not handed out.",
        examples=["<what `botfarm secrets generate-key` prints>"],
    )
    secret_keys_file: Path | None = Field(
        default=None,
        description="File that holds them, one in a line, where the variable itself is "
        "not set.",
        examples=["/run/secrets/botfarm-keys"],
    )
    bootstrap_token: SecretStr | None = Field(
        default=None,
        description="A token of role admin that is not stored in the database.",
        examples=["<32 or more random characters>"],
    )
    bootstrap_token_file: Path | None = Field(
        default=None,
        description="File that holds it, where the variable itself is not set.",
        examples=["/run/secrets/botfarm-token"],
    )
    insecure_no_auth: bool = Field(
        default=False,
        description="Serve beyond loopback without any token.",
        examples=["true"],
    )
    bcrypt_cost: int = Field(
        default=12,
        ge=4,
        le=20,
        description="Cost of a password's hash; each step doubles the time.",
        examples=[12],
    )
    cors_origins: Names = Field(
        default=(),
        description="Origins whose pages may call the API, separated by commas.",
        examples=["https://farm.example.com"],
    )
    allowed_hosts: Names = Field(
        default=(),
        description="Host names under which the server answers, separated by commas; "
        "all unless it is set.",
        examples=["farm.example.com,*.farm.example.com"],
    )
    pages: Readers = Field(
        default="token",
        description="Who may see `/docs` and `/openapi.json`: `token`, who has one or "
        "sits at the server's machine; `public`, everybody; `off`, nobody.",
        examples=["off"],
    )
    metrics: Readers = Field(
        default="token",
        description="Who may read `/metrics`: `token`, who has one of any role; "
        "`public`, everybody; `off`, nobody.",
        examples=["off"],
    )
    board: Literal["token", "off"] = Field(
        default="token",
        description="Whether there is `/board`, the live page: `token`, for who has "
        "one of any role; `off`, for nobody.",
        examples=["off"],
    )
    database_pool_size: int = Field(
        default=10,
        ge=2,
        le=200,
        description="Most connections to the database per server process.",
        examples=[10],
    )
    database_pooler: Literal["none", "transaction"] = Field(
        default="none",
        description="`transaction` where DATABASE_URL leads through PgBouncer in its "
        "transaction mode.",
        examples=["transaction"],
    )
    listen_url: str | None = Field(
        default=None,
        description="The same database without the pooler, for the one connection of "
        "each server that LISTENs.",
        examples=["postgresql://botfarm:password@localhost/botfarm"],
    )
    migrate_at_start: bool = Field(
        default=True,
        description="Bring the database to this version's schema at start.",
        examples=["false"],
    )
    claim_window: float = Field(
        default=15.0,
        ge=1,
        le=300,
        description="Seconds from a grant until it goes on unless renewed.",
        examples=[15],
    )
    poll_grace: float = Field(
        default=15.0,
        ge=1,
        le=300,
        description="Seconds that a waiter keeps its place when nobody asks for it.",
        examples=[15],
    )
    lock_delay: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="Seconds that a user rests whose holder vanished.",
        examples=[15],
    )
    cooldown: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="Seconds that a user rests after every lease, where the system "
        "under test limits logins.",
        examples=[5],
    )
    quarantine_after: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Different tests that may fail in a row with a user before it goes "
        "into quarantine by itself; 0 is never.",
        examples=[3],
    )
    patience: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Seconds that a waiter for several users may be passed.",
        examples=[10],
    )
    loop_interval: float = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds between two looks for expired leases.",
        examples=[1],
    )
    max_waiting: int = Field(
        default=2_000,
        ge=1,
        description="Most calls that wait at one server process.",
        examples=[2000],
    )
    max_waiting_per_token: int = Field(
        default=1_000,
        ge=1,
        description="Most calls of one token that wait at one server process.",
        examples=[1000],
    )
    max_requests_per_second: int = Field(
        default=1_000,
        ge=0,
        description="Requests that one token may send to one server process, counted "
        "over ten seconds; renewals and releases have as many again. 0 is no limit.",
        examples=[1000],
    )
    max_body_bytes: int = Field(
        default=1_048_576,
        ge=65_536,
        description="Most bytes of the body of an import or a kept state; that of "
        "other calls has 64 KiB, or a few times as much where it lists many leases or "
        "has an account's secrets.",
        examples=[1048576],
    )
    request_timeout: float = Field(
        default=20.0,
        ge=0.1,
        le=300,
        description="Seconds within which the head of a request has to arrive, and "
        "again its body, and its answer be read, each 64 KiB of it.",
        examples=[20],
    )
    retention_days: float = Field(
        default=30.0,
        gt=0,
        le=36_500,
        description="Days that ended leases are kept.",
        examples=[30],
    )
    audit_retention_days: float = Field(
        default=365.0,
        gt=0,
        le=36_500,
        description="Days that events of the audit log are kept.",
        examples=[365],
    )
    trusted_proxies: Names = Field(
        default=(),
        description="Addresses or networks of proxies whose X-Forwarded-For is "
        "believed, separated by commas.",
        examples=["10.1.2.3"],
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, given: Any) -> Any:
        return given.upper() if isinstance(given, str) else given

    @field_validator("pages", "metrics", "board", mode="before")
    @classmethod
    def _in_small_letters(cls, given: Any) -> Any:
        return given.strip().lower() if isinstance(given, str) else given

    @field_validator("database_url")
    @classmethod
    def _is_a_known_database(cls, given: str) -> str:
        database_url(given)
        return given

    @field_validator("listen_url")
    @classmethod
    def _is_postgresql(cls, given: str | None) -> str | None:
        if given and database_url(given).get_backend_name() != "postgresql":
            msg = "only PostgreSQL can LISTEN"
            raise ValueError(msg)
        return given

    @field_validator(
        "envs",
        "domains",
        "cors_origins",
        "allowed_hosts",
        "trusted_proxies",
        "secret_keys",
        mode="before",
    )
    @classmethod
    def _split(cls, given: Any) -> Any:
        if isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        return given

    @field_validator("envs", "domains")
    @classmethod
    def _names_something(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if not given:
            msg = "at least one name is needed"
            raise ValueError(msg)
        return given

    @field_validator("cors_origins")
    @classmethod
    def _names_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        message = "an origin is a scheme and a host, as https://farm.example.com"
        return _all_of(ORIGIN, given, message)

    @field_validator("allowed_hosts")
    @classmethod
    def _names_hosts(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        message = "a host is a name or an address, without scheme and port"
        return _all_of(HOST, given, message)

    @field_validator("trusted_proxies")
    @classmethod
    def _names_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for address in given:
            ipaddress.ip_network(address)
        return given

    @field_validator("secret_keys")
    @classmethod
    def _are_keys(cls, given: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in given:
            _decode_key(key)
        return given

    @field_validator("secret_keys_file")
    @classmethod
    def _holds_keys(cls, given: Path | None) -> Path | None:
        if given is not None and not _read_keys(given):
            msg = "the file holds no key"
            raise ValueError(msg)
        return given

    @field_validator("bootstrap_token")
    @classmethod
    def _can_be_sent(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None:
            _check_token(given.get_secret_value())
        return given

    @field_validator("bootstrap_token_file")
    @classmethod
    def _holds_a_token(cls, given: Path | None) -> Path | None:
        if given is not None:
            _check_token(_read_secret(given))
        return given

    def admin_token(self) -> str | None:
        """The bootstrap token, of the variable or else of the file."""
        if self.bootstrap_token is not None:
            return self.bootstrap_token.get_secret_value()
        if self.bootstrap_token_file is not None:
            return _read_secret(self.bootstrap_token_file)
        return None

    def sealing_keys(self) -> tuple[bytes, ...]:
        """The keys as bytes, newest first, of the variable or else of the file."""
        if not self.secret_keys and self.secret_keys_file is not None:
            return _read_keys(self.secret_keys_file)
        return tuple(_decode_key(key) for key in self.secret_keys)


def _all_of(
    pattern: re.Pattern[str], given: tuple[str, ...], message: str
) -> tuple[str, ...]:
    if not all(map(pattern.fullmatch, given)):
        raise ValueError(message)
    return given


def _read_keys(path: Path) -> tuple[bytes, ...]:
    listed = _read_secret(path).replace(",", " ").split()
    return tuple(_decode_key(SecretStr(key)) for key in listed)


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"the file cannot be read ({error.strerror})"
        raise ValueError(msg) from None
    except UnicodeDecodeError:
        return ""


def _check_token(text: str) -> None:
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        msg = "at least 16 printable ASCII characters without a space are needed"
        raise ValueError(msg)
    if is_mistyped(text):
        msg = "it begins as a made token does, and was cut off or mistyped"
        raise ValueError(msg)


def _decode_key(key: SecretStr) -> bytes:
    try:
        decoded = base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != SECRET_KEY_BYTES:
        msg = f"each key is {SECRET_KEY_BYTES} random bytes in base64"
        raise ValueError(msg)
    return decoded


def environment_name(field_name: str) -> str:
    """The name of the environment variable that people set for a field."""
    alias = Settings.model_fields[field_name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return f"BOTFARM_{field_name.upper()}"


def misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like a misspelt setting, and the setting that they look like.

    Variables of the plugin and of the command line have the same prefix, and are meant
    to stand in the same environment: what is only somewhat alike is not told.
    """
    names = [environment_name(field_name) for field_name in Settings.model_fields]
    return {
        name: alike[0]
        for name in environment
        if name.upper().startswith("BOTFARM_")
        and name not in OF_SUITES
        and _field_of(name) is None
        and (alike := difflib.get_close_matches(name, names, 1, ALIKE))
    }


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings; `overrides` (from a command line) win over all else.

    Raises:
        SettingsError: one is wrong; the message names it and gives an example.

    """
    try:
        return Settings(**dict(overrides or {}))
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None
    except UnicodeDecodeError:
        msg = "The file .env is not UTF-8 text: save it as UTF-8."
        raise SettingsError(msg) from None


class _FixedSettings(Settings):
    """Settings that are given in code alone: no environment and no file is read."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_others: PydanticBaseSettingsSource,
        **_more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def fixed_settings(values: Mapping[str, Any]) -> Settings:
    """Settings that are given in code alone, as the embedded mode's are.

    Raises:
        SettingsError: one is wrong.

    """
    try:
        return _FixedSettings(**dict(values))
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    location = str(first["loc"][0]) if first["loc"] else "a setting"
    field_name = _field_of(location)
    if field_name is None:
        return f"{location} is wrong: {first['msg']}"
    why = first["msg"].removeprefix("Value error, ")
    examples = Settings.model_fields[field_name].examples or ["…"]
    name = environment_name(field_name)
    return f"{name} is wrong: {why}. Example: {name}={examples[0]}"


def _field_of(location: str) -> str | None:
    for field_name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else []
        if location == field_name or location in names:
            return field_name
        if location.lower() == f"botfarm_{field_name}":
            return field_name
    return None
