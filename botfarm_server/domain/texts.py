"""What a text may be made of, so that people who read it are not misled.

All but `printable` are plain functions that say what is wrong with a text, or `None`.
"""

from __future__ import annotations

import re
import unicodedata

_LAYOUT = frozenset("\t\n")
_BIDI = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Characters that change the order in which others are shown."""
_INVISIBLE = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""What Unicode lets programs ignore, and does not already count as format (Cf)."""
_WRITTEN_TOGETHER = frozenset(
    {
        *("LATIN", "CJK", "IDEOGRAPHIC", "HANGUL", "BOPOMOFO"),
        *("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    }
)
"""Scripts that one word may have beside each other, as Unicode's names begin."""
_OF_ANY_SCRIPT = frozenset({"MODIFIER"})
_LATIN_TWINS = frozenset(
    "асԁеһіјӏорԛѕԝхуѵүАВСЕԌНІЈКМОРԚЅТԜХУҮӀ"  # Cyrillic
    "αγικνορυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"
    "հյոսօցՏՍՕ"  # Armenian
    "ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏂᏃᏎᏏᏒᏔᏕᏙᏚᏞᏟᏢᏦᏧᏴᏻ"  # Cherokee
    "ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴꓟ"  # noqa: RUF001 - Lisu, all of them twins
    "ⲞⲟⲢⲣⲤⲥⲬⲭⲔⲘⲚⲎⲒⲦ"  # Coptic
)
"""Letters of other scripts that look like a Latin one, accents aside."""
_RARE_LATIN = re.compile("LETTER (ALPHA|SCRIPT G|SMALL CAPITAL .*|.* CLICK)$")
"""What ends the names of Latin letters that look like plainer ones."""
_HIDDEN_MARK = re.compile(
    r"[ijl\u0131\u0237\u0456\u0458]\u0307|[\u0334-\u0338]|([\u0300-\u036f])\1"
)
"""A dot over what has one, a stroke through a letter, and the same mark twice."""
_WORD = re.compile(r"[^\W\d_]+")


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
    """Two names that are not the same must not look the same."""
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
    if not unicodedata.is_normalized("NFC", text):
        return "must be in Unicode's normal form NFC, as keyboards write it"
    return None


def no_login(text: str) -> str | None:
    """A name of which no letter only looks like another one, by a short rule.

    A login that has no Latin letter, and looks Latin throughout, passes, as do letters
    of one script that look alike.
    """
    if flaw := no_name(text):
        return flaw
    if not unicodedata.is_normalized("NFKC", text):
        return "must not contain variants of plainer characters (wide, raised, joined)"
    if _HIDDEN_MARK.search(text):
        return "must not contain marks that are hardly seen over or in a letter"
    words = [(word, _scripts(word)) for word in _WORD.findall(text)]
    has_latin = any("LATIN" in scripts for _, scripts in words)
    for word, scripts in words:
        if flaw := _misread(word, scripts, has_latin=has_latin):
            return flaw
    return None


def _scripts(word: str) -> set[str]:
    return {_name(letter).split(" ")[0] for letter in word} - _OF_ANY_SCRIPT


def _misread(word: str, scripts: set[str], *, has_latin: bool) -> str | None:
    names = " and ".join(sorted(name.capitalize() for name in scripts))
    if len(scripts) > 1 and not scripts <= _WRITTEN_TOGETHER:
        return f"must not mix {names} letters in one word"
    for letter in word:
        if "LATIN" in scripts and _RARE_LATIN.search(_name(letter)):
            return f"must not contain {_named(letter)}, which looks like another letter"
    if has_latin and all(_plain(letter) in _LATIN_TWINS for letter in word):
        return f"must not have a word of {names} letters that looks like a Latin one"
    return None


def _plain(letter: str) -> str:
    """The letter without its accents."""
    return unicodedata.normalize("NFD", letter)[0]


def _name(character: str) -> str:
    return unicodedata.name(character, "")


def _named(character: str) -> str:
    return f"U+{ord(character):04X}"
