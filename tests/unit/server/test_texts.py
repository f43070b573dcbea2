"""What names and labels may be made of, on each Python alike but for new letters."""

from __future__ import annotations

import unicodedata

import pytest

from botfarm_server.domain.logins import no_login
from botfarm_server.domain.texts import no_label, no_name

BLANK = (0x2800, 0x1D159, 0x13441, 0x13442, 0xFFFC, 0x16FE4)
PRIVATE = (0xE000, 0xF8FF, 0xF0000, 0x10FFFD)
NO_CHARACTERS = (0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x10FFFF)
UNASSIGNED = (0x0378, 0x2FE0, 0x1F8FF, 0xE0080)
"""Of no version of Unicode, up to 17."""


@pytest.mark.parametrize("number", [*BLANK, *PRIVATE, *NO_CHARACTERS])
def test_nobody_sees_it_or_it_looks_different_everywhere(number: int) -> None:
    text = f"ali{chr(number)}ce"
    for flaw in (no_name(text), no_label(text), no_login(text)):
        assert flaw is not None
        assert f"U+{number:04X}" in flaw


@pytest.mark.parametrize("number", UNASSIGNED)
def test_a_name_has_no_character_that_unicode_has_not(number: int) -> None:
    text = f"ali{chr(number)}ce"
    assert unicodedata.category(chr(number)) == "Cn"
    for flaw in (no_name(text), no_login(text)):
        assert flaw is not None
        assert f"U+{number:04X}" in flaw
        assert unicodedata.unidata_version in flaw


@pytest.mark.parametrize("number", UNASSIGNED)
def test_a_label_may_have_what_a_newer_unicode_may_have(number: int) -> None:
    """Which suites write labels should not depend on the Python of the server."""
    assert no_label(f"plan {chr(number)}") is None


def test_words_of_many_kinds_are_names_and_labels() -> None:
    for text in (
        "alice",
        "\u8a66\u9a13",
        "smile \U0001f600",
        "caf\u00e9",
        "1 \u2192 2",
    ):
        assert (no_name(text), no_label(text)) == (None, None)
