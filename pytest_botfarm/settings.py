"""What a run was told, by options, environment and ini file together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .client.environment import token_of
from .options import (
    DEFAULT_TTL,
    DEFAULT_WAIT,
    OPTIONS,
    Option,
    pool_file_beside_ini,
)

INI_LEVEL = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was told. At most one of `url` and `pool` is set."""

    url: str | None
    pool: Path | None
    env: str | None
    domain: str | None
    wait: float
    ttl: float
    keep_on_fail: float = 0.0
    """Minutes; 0 where a failed test's accounts are given back as all others."""
    report: Path | None = None
    cap_workers: bool = False
    pool_limit: int | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A value, and where it stood. A lower level is the stronger one."""

    value: Any
    level: int
    source: str


def read_settings(
    config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a run. Raises pytest.UsageError, naming what is wrong."""
    found = {option.name: _find(config, option, environ) for option in OPTIONS}
    url, pool = found["url"], found["pool"]
    if url and pool:
        if url.level == pool.level:
            raise pytest.UsageError(
                f"{url.source} and {pool.source} exclude each other: accounts come "
                "either from a server or from a file"
            )
        url, pool = (url, None) if url.level < pool.level else (None, pool)

    def value(name: str, default: Any = None) -> Any:
        return default if (item := found[name]) is None else item.value

    return Settings(
        url=url.value if url else None,
        pool=None if url else _pool_file(config, pool),
        env=value("env"),
        domain=value("domain"),
        wait=value("wait", DEFAULT_WAIT),
        ttl=value("ttl", DEFAULT_TTL),
        keep_on_fail=value("keep-on-fail", 0.0),
        report=_path(config, found["report"]) if found["report"] else None,
        cap_workers=value("cap-workers", False),
        pool_limit=value("pool-limit"),
    )


def check_settings(config: pytest.Config) -> Settings:
    """The settings of a run that begins. Raises pytest.UsageError, as above, and for a
    token that it could not use.
    """
    settings = read_settings(config)
    if settings.url is not None:
        read_token()
    return settings


def read_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The server's token. Raises pytest.UsageError if it cannot be one."""
    try:
        return token_of(environ)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def _find(
    config: pytest.Config, option: Option, environ: Mapping[str, str]
) -> _Found | None:
    found = option.find(config, environ)
    if found is None:
        return None
    level, source, text = found
    try:
        return _Found(option.read(text), level, source)
    except ValueError as error:
        raise pytest.UsageError(f"{source} {error}") from None


def _pool_file(config: pytest.Config, pool: _Found | None) -> Path | None:
    """The pool file with its full path, or the one beside the ini file."""
    if pool is not None:
        return _path(config, pool)
    beside_ini = pool_file_beside_ini(config)
    return beside_ini if beside_ini.is_file() else None


def _path(config: pytest.Config, found: _Found) -> Path:
    """A file's full path: relative to the ini file where that names it."""
    told_by_ini = found.level == INI_LEVEL
    beside_ini = pool_file_beside_ini(config).parent
    base = beside_ini if told_by_ini else config.invocation_params.dir
    return base / str(found.value)
