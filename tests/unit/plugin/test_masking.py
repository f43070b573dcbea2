"""How secrets are found in a text."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest

from pytest_botfarm.masking import Masker
from pytest_botfarm.spellings import spellings_of

NASTY = "Zq7\"vK'x\\2%wö é/9&Lm<T ~b"


def masker_of(*secrets: str | None) -> Masker:
    masker = Masker()
    masker.learn(*secrets)
    return masker


MASKER = masker_of("Zq7<\"é'/&+=~ x9")


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


@pytest.mark.parametrize(
    "spelled",
    [
        r"Zq7\u003c\"\u00e9\u0027/\u0026+=~ x9",  # JSON of Jinja2
        r"Zq7\u003C\"\u00e9'/\u0026+=~ x9",  # of Django
        r"Zq7\u003c\"é'/\u0026+=~ x9",  # of Go and Rails
        r"Zq7\u003c\"é\u0027/\u0026+\u003d~ x9",  # of Gson
        r"Zq7\u003C\u0022\u00E9\u0027/\u0026\u002B=~ x9",  # of .NET
        r"Zq7<\"\u00E9'/&+=~ x9",  # of Jackson
        r"Zq7<\"\u00e9'\/&+=~ x9",  # of PHP
        r"Zq7<\"é'\/&+=~ x9",
        "Zq7&lt;&#34;é&#39;/&amp;+=~ x9",  # HTML of Jinja2 and Go
        "Zq7&lt;&quot;é&#39;/&amp;+=~ x9",  # of Rails
        "Zq7&lt;&quot;é&#039;/&amp;+=~ x9",  # of PHP
        "Zq7&lt;&quot;&#233;&#39;/&amp;+=~ x9",  # of .NET
        "Zq7&lt;&quot;&#xE9;&#x27;/&amp;&#x2B;=~ x9",
        "Zq7&lt;&quot;&eacute;'/&amp;+=~ x9",  # of Java
        "Zq7&lt;&quot;é&apos;/&amp;+=~ x9",  # XML
        "Zq7&lt;&quot;&#233;'/&amp;+=~ x9",
        "Zq7&lt;\"&#233;'/&amp;+=~ x9",
        "Zq7%3C%22%E9%27%2F%26%2B%3D~%20x9",  # URLs in latin-1
        "Zq7%3C%22%C3%A9'/%26%2B%3D~+x9",  # of aiohttp
        "Zq7%3C%22%C3%A9%27%2F%26%2B%3D%7E+x9",  # of Java and PHP
        "Zq7%3c%22%c3%a9%27%2f%26%2b%3d%7e+x9",  # of .NET
        r"Zq7<\"\xE9'/&+=~ x9",  # YAML
        "Zq7<\"é''/&+=~ x9",  # YAML and SQL
        'Zq7<""é\'/&+=~ x9',  # CSV
        "Zq7<\"é'\"'\"'/&+=~ x9",  # a shell
    ],
)
def test_a_secret_is_found_as_other_libraries_and_languages_write_it(
    spelled: str,
) -> None:
    for text in (spelled, json.dumps(spelled), repr(json.dumps(spelled))):
        masked = MASKER.mask(f"before {text} after")
        assert masked.replace('"', "").replace("'", "") == "before *** after"


def test_a_text_that_is_written_alike_everywhere_has_one_spelling() -> None:
    assert len(spellings_of("hunter2-of.alice_2")) == 1
    assert len(spellings_of(NASTY)) < 3000


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    "show", [repr, bytes.decode, lambda it: it.replace(b"\n", b"\r\nE   ").decode()]
)
def test_base64_that_is_broken_into_lines_tells_nothing_of_a_secret(
    encoding: str, show: Callable[[bytes], str]
) -> None:
    secret = "Zq7<w&d/\"é'x9"
    masker = masker_of(secret)
    octets = secret.encode(encoding)
    for before in range(40, 60):  # the first line ends after 57 octets
        encoded = base64.encodebytes(bytes(before) + octets + bytes(60))
        masked = masker.mask(show(encoded))
        whole = base64.b64encode(bytes(before % 3) + octets).decode()[4:-4]
        pieces = {whole[at : at + 4] for at in range(len(whole) - 3)}
        assert not [piece for piece in pieces if piece in masked]


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


def test_a_name_of_a_state_is_a_secret_if_it_is_as_long_as_one() -> None:
    masker = Masker()
    masker.learn_state({"storageStateOfLogins": {"b9a1f36c8d5e4702": {"oauth2Id": 1}}})
    text = "b9a1f36c8d5e4702, oauth2Id of storageStateOfLogins"
    assert masker.mask(text) == "***, oauth2Id of storageStateOfLogins"


def test_all_texts_of_a_state_are_learnt_at_once() -> None:
    """Each time sorts all that is known, at each lease."""

    class Counting(Masker):
        times = 0

        def learn(self, *secrets: str | None) -> None:
            self.times += 1
            super().learn(*secrets)

    masker = Counting()
    masker.learn_state({"values": [f"value-{number}" for number in range(10, 30)]})
    assert masker.times == 1
    assert masker.mask("value-10 value-29") == "*** ***"


def test_the_texts_of_a_state_that_holds_itself_are_learnt() -> None:
    state: dict[str, object] = {"session": "t0ken-of-login"}
    state["again"] = [state]
    masker = Masker()
    masker.learn_state(state)
    assert masker.mask("sent t0ken-of-login") == "sent ***"
