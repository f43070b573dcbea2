"""Keeps secrets out of what is shown: by not showing them, and by finding them in text.

Whoever holds an account gets its password as a plain `str`, which works everywhere and
which no repr hides. So the plugin finds it again in what pytest is about to show: as it
is, and in the spellings that URLs, JSON, HTML, base64 and Python's own repr give it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cached_property
from threading import Lock

from .spellings import in_base64, spellings_of

MASK = "***"
MINIMUM_LENGTH = 4
"""Characters. What is shorter cannot be told from ordinary text, and stays."""
LONGEST_HARMLESS, MOST_HARMLESS = 500, 1_000
"""Characters of a text, and how many texts, that are remembered to show no secret."""
SHORTEST_OF_STATE = 8
"""Characters. A state holds many texts, and most short ones are none of its secrets."""
_SECRET_NAME = re.compile(r"(?=.*\d).{16,}", re.DOTALL)
"""A name within a state that is a session's, say. Ordinary names are words."""
PUBLIC_OF_STATE = frozenset({"domain", "name", "origin", "path", "sameSite", "url"})
"""What browsers' cookies and storages tell besides their values."""

_CUT = re.compile(r"""(\.{3}|…|\[\d+ chars\]|['"]\n[-+?E ]*b?['"])""")
"""How pytest, reprlib and unittest mark that they left out the rest of a text, and how
pprint goes on in the next line, of a diff or an error as well."""
_LINE = "[A-Za-z0-9+/]{60}"
_BREAK = re.compile(
    rf"\r?\n(?:(?<={_LINE}\n)|(?<={_LINE}\r\n))[-+?E ]*|\\n(?<={_LINE}\\n)"
)
"""How base64 goes on in the next line, as it is, in an error and in a repr."""
_ANY_BREAK = r"(?:\r?\n[-+?E ]*|\\n)?"
_UNCHANGED = re.compile("[A-Za-z0-9]+")
"""What every spelling but base64 leaves as it is."""


class Secrets(Mapping[str, str]):
    """Named secrets, which can be read one by one, but are never shown.

    Equality is that of identity: pytest would show the values of two mappings that
    differ.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        named = ", ".join(f"{name}={MASK}" for name in self._values)
        return f"Secrets({named})"

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Masker:
    """Knows secrets, and takes them out of texts. Threads may use it at once."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._secrets: tuple[_Secret, ...] = ()
        self._harmless: set[str] = set()
        """Texts without a secret: reports show many of them again and again."""

    def learn(self, *secrets: str | None) -> None:
        """Mask these from now on, each line of them by itself."""
        lines = [line.strip() for text in secrets for line in (text or "").split("\n")]
        with self._changing:
            known = {secret.text: secret for secret in self._secrets}
            for line in lines:
                if len(line) >= MINIMUM_LENGTH and line not in known:
                    known[line] = _Secret(line)
            # The longest first: one may be a part of another.
            longest_first = sorted(known.values(), key=lambda it: -len(it.text))
            self._secrets = tuple(longest_first)
            self._harmless = set()

    def learn_state(self, state: object) -> None:
        """Mask the texts in what JSON can tell, but for ordinary names and addresses.

        And in what it cannot, which a test may take for a state.
        """
        self.learn(*_texts_of(state))

    def mask(self, text: str) -> str:
        """The text with *** where a secret was, or what was left of one cut off."""
        harmless = self._harmless  # before the secrets, of which more may be learned
        if text in harmless:
            return text
        masked = self._masked(text)
        if masked == text and len(text) <= LONGEST_HARMLESS:
            if len(harmless) >= MOST_HARMLESS:
                harmless.clear()
            harmless.add(text)
        return masked

    def _masked(self, text: str) -> str:
        secrets = self._secrets
        if _BREAK.search(text):
            unbroken = _BREAK.sub("", text)
            for secret in secrets:
                text = secret.mask_broken(text, unbroken)
        for secret in secrets:
            text = secret.mask(text)
        if not secrets or not _CUT.search(text):
            return text
        # Texts alternate with the marks between them.
        pieces = _CUT.split(text)
        last = len(pieces) - 1
        for index in range(0, len(pieces), 2):
            for secret in secrets:
                pieces[index] = secret.mask_rest(
                    pieces[index], has_tail=index > 0, has_head=index < last
                )
        return "".join(pieces)


def _texts_of(state: object) -> Iterator[str]:
    to_do = [state]
    seen: dict[int, object] = {}  # a test's state may hold itself
    while to_do:
        value = to_do.pop()
        if isinstance(value, bytes):
            value = value.decode(errors="ignore")
        if isinstance(value, str):
            if len(value) >= SHORTEST_OF_STATE:
                yield value
            if value.startswith(("{", "[")):  # a storage keeps JSON as text
                with suppress(ValueError, RecursionError):
                    to_do.append(json.loads(value))
        elif id(value) not in seen:
            seen[id(value)] = value
            if isinstance(value, Mapping):
                yield from filter(_is_secret_name, value)
                to_do += [
                    it for name, it in value.items() if name not in PUBLIC_OF_STATE
                ]
            elif isinstance(value, (Sequence, AbstractSet)):
                to_do += value


def _is_secret_name(name: object) -> bool:
    return isinstance(name, str) and _SECRET_NAME.fullmatch(name) is not None


class _Secret:
    """One line of a secret, and how to find it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._core = max(_UNCHANGED.findall(text), key=len, default="")
        self._in_base64 = in_base64(text)

    def mask(self, text: str) -> str:
        if self._core in text:  # it seldom is, and this is quick to say
            for spelling in self._spellings:
                text = text.replace(spelling, MASK)
        for spelling in self._in_base64:
            text = text.replace(spelling, MASK)
        return text

    def mask_broken(self, text: str, unbroken: str) -> str:
        """For base64 that is broken into lines."""
        for spelling in self._in_base64:
            if spelling in unbroken:
                text = re.sub(_ANY_BREAK.join(map(re.escape, spelling)), MASK, text)
        return text

    def mask_rest(self, text: str, *, has_tail: bool, has_head: bool) -> str:
        """For a text that was cut off at its beginning, at its end, or at both."""
        is_tail = has_tail and text[:MINIMUM_LENGTH] in self._fragments
        is_head = has_head and text[-MINIMUM_LENGTH:] in self._fragments
        if is_tail and is_head and any(text in it for it in self._whole):
            return MASK
        if is_head:
            length = max(_overlap(text, it) for it in self._whole)
            text = text[: len(text) - length] + MASK if length else text
        if is_tail:
            length = max(_overlap(it, text[: len(it)]) for it in self._whole)
            text = MASK + text[length:] if length else text
        return text

    @cached_property
    def _whole(self) -> Sequence[str]:
        return (*self._spellings, *self._in_base64)

    @cached_property
    def _fragments(self) -> frozenset[str]:
        """All that may stand beside a cut."""
        return frozenset(
            spelling[at : at + MINIMUM_LENGTH]
            for spelling in self._whole
            for at in range(len(spelling) - MINIMUM_LENGTH + 1)
        )

    @cached_property
    def _spellings(self) -> Sequence[str]:
        return spellings_of(self.text)


def _overlap(left: str, right: str) -> int:
    """How many characters at the end of the one are the beginning of the other."""
    last = left[-MINIMUM_LENGTH:]
    at = right.rfind(last)
    while at >= 0 and not left.endswith(right[: at + MINIMUM_LENGTH]):
        at = right.rfind(last, 0, at + MINIMUM_LENGTH - 1)
    return at + MINIMUM_LENGTH if at >= 0 else 0
