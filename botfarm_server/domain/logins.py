"""Which texts are logins: none that people could take for another one.

The rule is made after UTS #39 of Unicode: how scripts may be mixed, and its data on
characters that look like one of ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise

from botfarm_server.domain.look_alikes import LOOK_ALIKES
from botfarm_server.domain.texts import no_name

_LATIN = "LATIN"
_WRITTEN_TOGETHER = frozenset(
    {
        *(_LATIN, "CJK", "IDEOGRAPHIC", "HANGUL", "BOPOMOFO"),
        *("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    }
)
"""Scripts that one word may have beside each other, as Unicode's names begin."""
_NAMED_OTHERWISE = {
    "ARABIC-INDIC": "ARABIC",
    "EXTENDED": "ARABIC",  # ARABIC-INDIC DIGIT
    "COMBINING": None,
    "MODIFIER": None,
}
"""Of names that do not begin with their script: which it is, or that it is any."""
_LETTERS_OF_LANGUAGES = frozenset("\u0131\u02bb\u02bc")
"""The dotless i of Turkish, and apostrophes that are letters, as of Hawaiian."""
_HIDDEN_MARK = re.compile(
    r"[ijl\u0131\u0237\u0456\u0458]\u0307|[\u0334-\u0338]|([\u0300-\u036f])\1"
)
"""A dot over what has one, a stroke through a letter, and the same mark twice."""
_STROKES = frozenset(
    unicodedata.normalize("NFKC", chr(radical)) for radical in range(0x2F00, 0x2F06)
)
"""Han characters of one stroke, which are the first radicals of Unicode."""
_WORD = re.compile(r"[^\x00-/:-@\[-`{-\x7f]+")
"""What stands between punctuation of ASCII. Any other belongs to the word."""


@dataclass(frozen=True, eq=False)
class _Word:
    text: str
    scripts: frozenset[str]
    plain: str | None
    """How all of it looks in ASCII, accents aside; `None` if some of it does not."""

    @property
    def letters(self) -> set[str]:
        """Those that it shows, if all of it looks like ASCII."""
        return {it for it in self.plain or "" if it.isalpha()}


def no_login(text: str) -> str | None:
    """What is wrong with a login: a character or a word that looks like another one.

    Not promised: a login without a Latin letter may look Latin throughout, and letters
    of one script may look like each other, as may those of scripts that are written
    together.
    """
    if flaw := no_name(text):
        return flaw
    if text.isascii():
        return None
    if not unicodedata.is_normalized("NFKC", text):
        return "must not contain variants of plainer characters (wide, raised, joined)"
    if _HIDDEN_MARK.search(text):
        return "must not contain marks that are hardly seen over or in a letter"
    # A name and its domain may be of two scripts.
    parts = [list(map(_word, _WORD.findall(part))) for part in text.split("@")]
    has_latin = any(_LATIN in word.scripts for part in parts for word in part)
    for part in parts:
        flaws = chain(
            map(_flaw_within, part),
            [_mixed_digits(part)],
            (_flaw_beside(word, part, has_latin=has_latin) for word in part),
        )
        if flaw := next(filter(None, flaws), None):
            return flaw
    return None


def _word(text: str) -> _Word:
    looks = [
        letter if letter.isascii() else LOOK_ALIKES.get(letter, "")
        for letter in unicodedata.normalize("NFD", text)
        if unicodedata.category(letter) != "Mn"
    ]
    return _Word(
        text,
        frozenset(script for it in text if (script := _script(it)) is not None),
        "".join(looks) if all(looks) else None,
    )


def _flaw_within(word: _Word) -> str | None:
    if len(word.scripts) > 1 and not word.scripts <= _WRITTEN_TOGETHER:
        names = " and ".join(sorted(map(str.capitalize, word.scripts)))
        foreign = next(it for it in word.text if _script(it) not in {None, _LATIN})
        return f"must not mix {names} letters in one word: {_told(foreign)}"
    for character in word.text:
        if _is_misleading(character, word):
            return f"must not contain {_told(character)}"
    if stroke := _stroke_beside_latin(word):
        return f"must not have {_named(stroke)} beside a Latin letter or a digit"
    return None


def _stroke_beside_latin(word: _Word) -> str | None:
    """A stroke that could be read as an l, a 1 or a dash."""
    letters = [it for it in word.text if unicodedata.category(it) != "Mn"]
    for one, other in chain(pairwise(letters), pairwise(reversed(letters))):
        if one in _STROKES and (other.isdecimal() or _script(other) == _LATIN):
            return one
    return None


def _is_misleading(character: str, word: _Word) -> bool:
    """Whether it looks like another one, whatever it stands beside in its word."""
    if character not in LOOK_ALIKES or character in _LETTERS_OF_LANGUAGES:
        return False
    script = _script(character)
    if script is None:  # such as a dash, but not the punctuation of the word's script
        return _first_of_name(character) not in word.scripts
    return _LATIN in word.scripts


def _mixed_digits(part: Iterable[_Word]) -> str | None:
    digits = [it for word in part for it in word.text if it.isdecimal()]
    if len({ord(it) - unicodedata.digit(it) for it in digits}) <= 1:
        return None
    foreign = next(it for it in digits if not it.isascii())
    return f"must not mix digits of several scripts: {_told(foreign)}"


def _flaw_beside(word: _Word, part: Iterable[_Word], *, has_latin: bool) -> str | None:
    """What is wrong with a word that could be read in the script of another one."""
    if word.plain is None or not word.scripts:
        return None
    beside = frozenset[str]().union(*(it.scripts for it in part)) - word.scripts
    for script in sorted(beside):
        if _reads_as(word, script):
            return _taken_for(word, script)
    # A word such as an initial is read as others beside it, if one tells their script.
    is_told = any(it.plain is None and it.scripts == word.scripts for it in part)
    if has_latin and _LATIN not in word.scripts and not is_told:
        return _taken_for(word, _LATIN)
    return None


def _reads_as(word: _Word, script: str) -> bool:
    if script == _LATIN:
        return True
    return bool(word.letters) and word.letters <= _twins(script).keys()


def _taken_for(word: _Word, script: str) -> str:
    letter = next(it for it in word.text if _script(it) is not None)
    looks = _told(letter)
    if _LATIN in word.scripts:
        plain = LOOK_ALIKES.get(_base(letter), _base(letter))
        looks = f"{_named(letter)}, which looks like {_named(_twins(script)[plain])}"
    return f"must not have a word that looks {script.capitalize()}: {looks}"


@cache
def _twins(script: str) -> dict[str, str]:
    """By a character of ASCII, one of that script that looks like it."""
    return {
        plain: character
        for character, plain in LOOK_ALIKES.items()
        if _script(character) == script
    }


def _script(character: str) -> str | None:
    """`None` for what stands beside letters of any script."""
    category = unicodedata.category(character)
    if category[0] not in "LM" and (category != "Nd" or character.isascii()):
        return None
    first = _first_of_name(character)
    return _NAMED_OTHERWISE.get(first, first)


def _first_of_name(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0]


def _told(character: str) -> str:
    plain = LOOK_ALIKES.get(_base(character))
    return _named(character) + (f", which looks like {plain}" if plain else "")


def _base(character: str) -> str:
    """Without its accents."""
    return unicodedata.normalize("NFD", character)[0]


def _named(character: str) -> str:
    name = unicodedata.name(character, "which has no name")
    return f"U+{ord(character):04X} ({name})"
