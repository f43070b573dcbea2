"""Writes botfarm_server/domain/look_alikes.py, from Unicode's data on confusables.

It runs where `confusable-homoglyphs` is installed, which carries the data.
"""

import re
import sys
import unicodedata
from pathlib import Path

from confusable_homoglyphs.confusables import confusables_data

MODULE = Path(__file__).parent.parent / "botfarm_server/domain/look_alikes.py"
ASCII = [chr(code) for code in range(0x21, 0x7F)]
BEYOND = {
    "k": "\u03ba",
    "x": "\u03c7\u2cad",
    "j": "\u0575",
    "Q": "\u051a",
    "_": "\u02cd",
}
"""What Unicode likens to no ASCII character, or to one in another case."""
TOLD_APART = {"\u0433"}
"""A Cyrillic letter of many names that Unicode likens to `r`."""
CASED = ("LATIN", "CHEROKEE")
"""Scripts whose letters look alike in both cases, and stand there in one."""
SMALL_CAPITAL = re.compile("LATIN LETTER SMALL CAPITAL ([A-Z])$")
ROW = 15
"""Characters, so that a row fits into 88 columns."""
HEADING = '''"""Characters that look like one of ASCII, as Unicode has them.

Written by `python3 tasks.py look_alikes`, from confusables.txt of Unicode 15.1
(copyright Unicode, Inc.; Unicode License v3). Those that the normal form NFKC takes for
plainer ones are left out, and one that people tell apart; letters of the other case,
Latin small capitals and a few more are added.
"""

from __future__ import annotations

_ROWS = """
'''
FOOTING = '''"""

LOOK_ALIKES = {
    chr(int(code, 16)): plain
    for plain, *codes in map(str.split, _ROWS.strip().splitlines())
    for code in codes
}
"""By the character, the one of ASCII that it looks like."""
'''


def look_alikes() -> dict[str, str]:
    found = {
        # Those that are written from right to left stand between marks that say so.
        other["c"].strip("\u200e"): plain
        for plain in reversed(ASCII)
        for other in confusables_data.get(plain, [])
    }
    for character, plain in list(found.items()):
        if unicodedata.name(character[0], "").startswith(CASED):
            for other in (character.upper(), character.lower()):
                found.setdefault(other, plain)
    for character in map(chr, range(sys.maxunicode)):
        if capital := SMALL_CAPITAL.match(unicodedata.name(character, "")):
            found.setdefault(character, capital[1])
    for plain, characters in BEYOND.items():
        found.update(dict.fromkeys(characters, plain))
    return {
        character: plain
        for character, plain in found.items()
        if len(character) == 1
        and not character.isascii()
        and character not in TOLD_APART
        and unicodedata.is_normalized("NFKC", character)
    }


def main() -> None:
    rows = []
    found = look_alikes()
    for plain in ASCII:
        codes = [f"{ord(it):04X}" for it in sorted(found) if found[it] == plain]
        rows += [
            " ".join([plain, *codes[first : first + ROW]])
            for first in range(0, len(codes), ROW)
        ]
    text = "\n".join(rows).replace("\\", r"\\")
    MODULE.write_text(f"{HEADING}{text}\n{FOOTING}", "utf-8")


if __name__ == "__main__":
    main()
