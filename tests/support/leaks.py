"""Finds secrets in texts, without any part of the plugin."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping

import yaml

FRAGMENT = 8
"""Characters: as much of a secret as counts as one."""


def _base64(text: str) -> Iterator[str]:
    for encoding in ("utf-8", "latin-1"):
        for before in ("", "-", "--"):
            octets = f"{before}{text}".encode(encoding)
            # What stands beside it has a part in the characters at both ends.
            yield base64.b64encode(octets).decode()[4:-4]
            yield base64.urlsafe_b64encode(octets).decode()[4:-4]


def _replaced(text: str, replacements: Mapping[str, str]) -> str:
    for character, spelled in replacements.items():
        text = text.replace(character, spelled)
    return text


def _json_for_pages(text: str) -> Iterator[str]:
    """As Jinja2, PHP and .NET write it."""
    plain = json.dumps(text)[1:-1]
    numbered = {it: f"\\u{ord(it):04x}" for it in "<>&'"}
    yield _replaced(plain, numbered)
    yield _replaced(plain, {"/": r"\/"})
    numbers = {it: f"\\u{ord(it):04X}" for it in "\"<>&'+öéü"}
    yield _replaced(text.replace("\\", r"\\"), numbers)


def _html_by_numbers(text: str) -> Iterator[str]:
    """As Jinja2, lxml and .NET write it."""
    quotes = {"&quot;": "&#34;", "&#x27;": "&#39;"}
    yield _replaced(html.escape(text), quotes)
    yield html.escape(text, quote=False).encode("ascii", "xmlcharrefreplace").decode()
    numbers = {it: f"&#x{ord(it):X};" for it in "+öéü"}
    yield _replaced(html.escape(text), numbers)


SPELLINGS: Mapping[str, Callable[[str], Iterator[str]]] = {
    "itself": lambda text: iter([text]),
    "URL": lambda text: iter(
        spelled(text)
        for spelled in (
            urllib.parse.quote,
            urllib.parse.quote_plus,
            lambda it: urllib.parse.quote(it, safe=""),
            lambda it: urllib.parse.quote(it, safe="!~*'()"),
        )
    ),
    "URL in latin-1": lambda text: iter([urllib.parse.quote(text, encoding="latin-1")]),
    "JSON": lambda text: iter(
        json.dumps(text, ensure_ascii=only_ascii)[1:-1] for only_ascii in (True, False)
    ),
    "JSON within JSON": lambda text: iter([json.dumps(json.dumps(text))[3:-3]]),
    "JSON for pages": _json_for_pages,
    "YAML": lambda text: iter([yaml.dump(text, width=1000).strip("\"'\n")]),
    "repr": lambda text: iter(
        [repr(text)[1:-1], repr(text + "'\"")[1:-4], ascii(text)[1:-1]]
    ),
    "repr of octets": lambda text: iter([repr(text.encode())[2:-1]]),
    "HTML": lambda text: iter([html.escape(text), html.escape(text, quote=False)]),
    "HTML by numbers": _html_by_numbers,
    "base64": _base64,
}


def fragments(text: str) -> set[str]:
    return {text[at : at + FRAGMENT] for at in range(len(text) - FRAGMENT + 1)}


class Searcher:
    """Looks for each fragment of each spelling of each line of some secrets."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = {
            fragment: f"{name} as {spelling}"
            for name, secret in secrets.items()
            for line in secret.splitlines()
            for spelling, spelled in SPELLINGS.items()
            for form in spelled(line)
            for fragment in fragments(form)
        }

    def leaks(self, text: str) -> dict[str, str]:
        """What was found, and where it stands."""
        found = {}
        for fragment in self._names.keys() & fragments(text):
            at = text.index(fragment)
            found[self._names[fragment]] = text[max(0, at - 200) : at + 100]
        return found
