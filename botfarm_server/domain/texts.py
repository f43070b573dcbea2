"""What a text may be made of, so that people who read it are not misled.

All but `printable` are plain functions that say what is wrong with a text, or `None`.
"""

from __future__ import annotations

import unicodedata

_LAYOUT = frozenset("\t\n")
_BIDI = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Characters that change the order in which others are shown."""
_INVISIBLE = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
            *(0x2800, 0xFFFC, 0x13441, 0x13442, 0x16FE4, 0x1D159),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""What Unicode lets programs ignore, and does not already count as format (Cf), and
what it draws as nothing: blanks, fillers, an empty pattern, a place for an object."""


def printable(text: str) -> str:
    """The text without control characters, which could steer a terminal."""
    return "".join(
        it if it.isprintable() or it == "\n" else ascii(it)[1:-1] for it in text
    )


def unstorable(text: str) -> str | None:
    """PostgreSQL cannot store it; SQLite could, and both must answer alike."""
    if "\x00" in text:
        return "must not contain the NUL character"
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return "must not contain unpaired surrogates"
    return None


def unreadable(text: str) -> str | None:
    """A text of several lines may have tabs; what moves a cursor it may not."""
    if text.isascii() and text.isprintable():
        return None
    if flaw := unstorable(text):
        return flaw
    for character in text:
        if unicodedata.category(character) == "Cc" and character not in _LAYOUT:
            return f"must not contain the control character {_named(character)}"
        if character in _BIDI:
            return f"must not turn the order of its letters ({_named(character)})"
    return None


def no_name(text: str) -> str | None:
    """Two names that are not the same must not look the same.

    What this Python's Unicode does not have may look like anything, or nothing. That is
    refused here, although a newer Python may know it as a letter or an emoji.
    """
    if flaw := no_label(text):
        return flaw
    for character in text:
        if unicodedata.category(character) == "Cn":
            version = unicodedata.unidata_version
            return f"must not contain {_named(character)}, unknown to Unicode {version}"
    return None


def no_label(text: str) -> str | None:
    """As of names, but for characters that a newer Unicode may have.

    Labels are the suites' own words. Whether they are taken should not depend on the
    Python that a server runs on.
    """
    if text.isascii() and text.isprintable() and text == text.strip():
        return None
    if flaw := unstorable(text):
        return flaw
    if text != text.strip():
        return "must not begin or end with a space"
    for character in text:
        if unicodedata.category(character) in {"Cc", "Zl", "Zp"}:
            return f"must not contain the control character {_named(character)}"
        if unicodedata.category(character) == "Cf" or character in _INVISIBLE:
            return f"must not contain the invisible character {_named(character)}"
        if unicodedata.category(character) == "Co" or _is_none(character):
            return (
                f"must not contain {_named(character)}, which Unicode does not define"
            )
    if not unicodedata.is_normalized("NFC", text):
        return "must be in Unicode's normal form NFC, as keyboards write it"
    return None


def _is_none(character: str) -> bool:
    """Whether Unicode says that it will never be a character."""
    return 0xFDD0 <= ord(character) <= 0xFDEF or ord(character) & 0xFFFE == 0xFFFE


def _named(character: str) -> str:
    return f"U+{ord(character):04X}"
