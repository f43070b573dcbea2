"""The plugin's options: command line before environment before ini file.

Loaded in every run of pytest, so it does no more than name them.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

POOL_FILE = "botfarm.toml"
DEFAULT_WAIT, MAXIMUM_WAIT = 300.0, 86_400.0
DEFAULT_TTL, MINIMUM_TTL, MAXIMUM_TTL = 60.0, 5.0, 86_400.0
MAXIMUM_KEEP = 1_440.0
"""Minutes: a day, the longest that a server takes."""
MAXIMUM_LIMIT = 100_000


class Option:
    """One setting: its names, and how its text is read."""

    # Not a dataclass, which would take a fifth of the time that loading the plugin may.
    def __init__(
        self,
        name: str,
        metavar: str | None,
        explanation: str,
        read: Callable[[str], object] = str,
    ) -> None:
        """Without a metavar it is a flag, which the command line gives no text."""
        self.name = name
        self.metavar = metavar
        self.help = explanation
        self.read = read
        self.flag = f"--botfarm-{name}"
        self.opposite = f"--no-botfarm-{name}"
        self.key = f"botfarm_{name}".replace("-", "_")
        self.variable = self.key.upper()

    def find(
        self, config: pytest.Config, environ: Mapping[str, str]
    ) -> tuple[int, str, str] | None:
        """The level, source and text of the strongest place that sets it.

        The lower the level, the stronger.
        """
        sources = (
            (self.flag, config.getoption(self.key, None)),
            (self.variable, environ.get(self.variable)),
            (f"{self.key} in the ini file", config.getini(self.key)),
        )
        for level, (source, text) in enumerate(sources):
            if text:
                return level, source, text
        return None


def _url(text: str) -> str:
    from urllib.parse import urlsplit  # noqa: PLC0415  # only where there is one

    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"must be like https://botfarm.example.com, not {text!r}")
    if parts.username or parts.password:
        raise ValueError("must not contain a password; the token is BOTFARM_TOKEN")
    return text.rstrip("/")


def _number(unit: str, low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(
                f"must be a number of {unit} from {low:g} to {high:g}, not {text!r}"
            )
        return number

    return read


def _truth(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(f"must be true or false, not {text!r}") from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAXIMUM_LIMIT):
        raise ValueError(
            f"must be a whole number from 1 to {MAXIMUM_LIMIT}, not {text!r}"
        )
    return int(text)


def _refuse_token(_: str) -> None:
    raise ValueError(
        "every user of this machine can read its command lines, and the shell keeps "
        "them: set BOTFARM_TOKEN, or BOTFARM_TOKEN_FILE to the name of a file that "
        "holds the token"
    )


OPTIONS = (
    Option("url", "URL", "the Botfarm server to lease test accounts from", _url),
    Option(
        "pool",
        "FILE",
        "a file of test accounts (TOML), served by a server of this run's own "
        f"(default: {POOL_FILE} beside the ini file, if there is no URL)",
    ),
    Option("env", "NAME", "the env of accounts where a test names none"),
    Option("domain", "NAME", "the domain of accounts where a test names none"),
    Option(
        "wait",
        "SECONDS",
        f"how long a test waits for an account (default: {DEFAULT_WAIT:g})",
        _number("seconds", 0, MAXIMUM_WAIT),
    ),
    Option(
        "ttl",
        "SECONDS",
        "how soon an account is free again after its holder vanished "
        f"(default: {DEFAULT_TTL:g})",
        _number("seconds", MINIMUM_TTL, MAXIMUM_TTL),
    ),
    Option(
        "keep-on-fail",
        "MINUTES",
        "how long a failed test's accounts stay leased for a person to look at "
        "(default: not at all)",
        _number("minutes", 0, MAXIMUM_KEEP),
    ),
    Option("report", "FILE", "write a timeline of the run's leases, as a page of HTML"),
    Option(
        "cap-workers",
        None,
        "let `-n auto` of pytest-xdist start at most as many workers as there are "
        "accounts",
        _truth,
    ),
    Option(
        "pool-limit",
        "N",
        "up to how many accounts of a pool the suite's hook may make new ones, in all "
        "runs together (default: none are made)",
        _count,
    ),
)


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("botfarm", "test accounts (Botfarm)")
    for option in OPTIONS:
        group.addoption(
            option.flag,
            dest=option.key,
            default=None,
            **_form(option),
            help=f"{option.help}; also {option.variable} and {option.key} in the ini",
        )
        parser.addini(option.key, f"see {option.flag}", default="")
        if option.metavar is None:
            group.addoption(
                option.opposite,
                dest=option.key,
                default=None,
                **_constant("false"),
                help=f"the opposite of {option.flag}, whatever sets that elsewhere",
            )
    group.addoption(
        "--botfarm-token",
        metavar="TOKEN",
        type=_for_argparse(_refuse_token),
        help=argparse.SUPPRESS,
    )


def _constant(text: str) -> dict[str, object]:
    return {"action": "store_const", "const": text}


def _form(option: Option) -> dict[str, object]:
    if option.metavar is None:
        return _constant("true")
    return {"metavar": option.metavar, "type": _for_argparse(option.read)}


def _for_argparse(read: Callable[[str], object]) -> Callable[[str], object]:
    """Keeps the text, once it is known to be right."""

    def check(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


def pool_file_beside_ini(config: pytest.Config) -> Path:
    return (config.inipath.parent if config.inipath else config.rootpath) / POOL_FILE


def is_configured(
    config: pytest.Config, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether accounts come from anywhere, be it told rightly or wrongly."""
    return pool_file_beside_ini(config).is_file() or is_told(
        config, "url", "pool", environ=environ
    )


def is_told(
    config: pytest.Config, *names: str, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether any place sets one of these options, or of all if none is named."""
    return any(
        option.find(config, environ)
        for option in OPTIONS
        if not names or option.name in names
    )
