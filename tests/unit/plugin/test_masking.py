"""How secrets are found in a text."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

import pytest

from pytest_botfarm.masking import Masker

NASTY = "Zq7\"vK'x\\2%wö é/9&Lm<T ~b"


def masker_of(*secrets: str | None) -> Masker:
    masker = Masker()
    masker.learn(*secrets)
    return masker


@pytest.mark.parametrize("secret", ["hunter2!", NASTY, "пароль", "pass word", '"\\"\\'])
@pytest.mark.parametrize(
    "text",
    [
        str,
        repr,
        ascii,
        json.dumps,
        quote,
        lambda it: urlencode({"password": it}),
        lambda it: repr(json.dumps({"body": json.dumps({"password": it})})),
        lambda it: repr([f"it's {it}", f'"{it}"', it.encode()]),
    ],
)
def test_a_secret_is_found_however_it_is_written(secret: str, text: object) -> None:
    assert callable(text)
    masked = masker_of(secret).mask(f"before {text(secret)} after")
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert "***" in masked
    for part in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret)):
        assert part not in masked


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_base64_of_a_text_around_a_secret_tells_nothing_of_it(before: str) -> None:
    encoded = base64.b64encode(f"{before}hunter2!:x".encode()).decode()
    masked = masker_of("hunter2!").mask(f"Basic {encoded}")
    assert "***" in masked
    assert len(masked) < len("Basic ***") + len(before) * 2 + 8


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("'correct horse bat...", "'***..."),
        ("...ery staple'", "...***'"),
        ("'correct...taple'", "'***...***'"),
        ("corr[9 chars]taple", "***[9 chars]***"),
        ("('correct '\n 'horse '\n 'battery staple')", "('***'\n '***'\n '***')"),
        ("cor...", "cor..."),
        ("no secret... at all", "no secret... at all"),
    ],
)
def test_what_was_cut_off_is_found_from_four_characters_on(
    text: str, masked: str
) -> None:
    assert masker_of("correct horse battery staple").mask(text) == masked


def test_each_line_of_a_secret_is_one() -> None:
    masker = masker_of("-----BEGIN KEY-----\n  c2VjcmV0\nIGtleQ==\n")
    assert masker.mask("E   c2VjcmV0\nE   IGtleQ==") == "E   ***\nE   ***"


def test_a_secret_that_holds_another_is_masked_as_a_whole() -> None:
    assert masker_of("secret", "secret of alice", None).mask("secret of alice") == "***"


def test_a_text_too_short_to_be_told_from_others_stays() -> None:
    assert masker_of("abc", "", "    ", None).mask("abc    ") == "abc    "


def test_what_knows_no_secret_changes_nothing() -> None:
    assert Masker().mask("'a'\n'b'...") == "'a'\n'b'..."


def test_the_values_of_a_state_are_secrets_and_its_names_are_not() -> None:
    cookie = {"name": "session-of-a-login", "value": "c00kie-value", "path": "/account"}
    kept = {"name": "login-of-user", "value": json.dumps({"access": "t0ken-of-login"})}
    masker = Masker()
    masker.learn_state(
        {
            "cookies": [{**cookie, "domain": "shop.example.com", "expires": -1.0}],
            "origins": [{"origin": "https://shop.example.com", "localStorage": [kept]}],
        }
    )
    text = "session-of-a-login at https://shop.example.com/account"
    assert masker.mask(text) == text
    assert masker.mask("c00kie-value; t0ken-of-login") == "***; ***"
