"""How a text is written in URLs, JSON, HTML, base64, and by Python's own repr."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from html import escape
from html.entities import codepoint2name
from urllib.parse import quote

LEVELS = 3
"""The repr of JSON within JSON, say. Ordinary passwords look alike on all of them."""
LONGEST_NESTED = 1000
"""Characters. What is longer, a storage as JSON say, is a secret for what stands in it,
and all levels of the whole would take seconds."""

ABOVE_ASCII = "\x80-\U0010ffff"
"""As it stands in a class of `re`."""
UPPER, LOWER = "{:04X}", "{:04x}"
"""How the numbers of characters are written in JSON."""


def spellings_of(text: str) -> Sequence[str]:
    """The longest first: one may be a part of another."""
    spellings = {text}
    ways: Sequence[Callable[[str], str]] = (*SPELLINGS, *INNERMOST)
    for _ in range(LEVELS if len(text) <= LONGEST_NESTED else 1):
        spellings |= {spell(spelled) for spell in ways for spelled in spellings}
        ways = SPELLINGS
    return sorted(spellings, key=len, reverse=True)


def in_base64(text: str) -> frozenset[str]:
    """What base64 makes of it, whatever stands before and after it."""
    # Clients of HTTP write user and password in the one or the other.
    return frozenset(
        spelled
        for octets in {_utf8(text), _latin(text)}
        for spelled in _whole_in_base64(octets)
    )


def _whole_in_base64(octets: bytes) -> Iterator[str]:
    """All characters that depend on these octets alone."""
    for before in range(3):
        encoded = b64encode(bytes(before) + octets).decode()
        whole = encoded[(before * 8 + 5) // 6 : (before + len(octets)) * 8 // 6]
        yield whole
        yield whole.translate({ord("+"): "-", ord("/"): "_"})  # for URLs


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _latin(text: str) -> bytes:
    """In latin-1, as long as it has all of the characters."""
    with suppress(UnicodeEncodeError):
        return text.encode("latin-1")
    return _utf8(text)


def _percent(text: str, safe: str = "", encode: Callable[[str], bytes] = _utf8) -> str:
    return quote(encode(text), safe=safe)


def _form(text: str, safe: str = "") -> str:
    """As a field of a form, in which a space is a plus."""
    return _percent(text, f"{safe} ").replace(" ", "+")


def _form_of_few(text: str, safe: str = "") -> str:
    """As a form of those who take less for safe than the newest RFC."""
    return _form(text, safe).replace("~", "%7E")


def _in_lower_case(percent: str) -> str:
    return re.sub("%..", lambda it: it[0].lower(), percent)


def _markup(text: str, double: str = '"', single: str = "'") -> str:
    return escape(text, quote=False).replace('"', double).replace("'", single)


def _in_ascii(markup: str) -> str:
    return markup.encode("ascii", "xmlcharrefreplace").decode()


def _in_hexadecimal(markup: str) -> str:
    return re.sub(f"[+{ABOVE_ASCII}]", lambda it: f"&#x{ord(it[0]):X};", markup)


def _json(
    text: str, numbered: str, digits: str = LOWER, *, only_ascii: bool = False
) -> str:
    """JSON with the numbers of these characters, a class of `re`, in their place."""

    def spell(match: re.Match[str]) -> str:
        if match[0] == r"\\":
            return match[0]
        utf16 = memoryview(match[0][-1].encode("utf-16", "surrogatepass")).cast("H")
        return "".join(f"\\u{digits.format(unit)}" for unit in utf16[1:])

    body = json.dumps(text, ensure_ascii=only_ascii)[1:-1]
    return re.sub(rf"\\\\|\\?[{numbered}]", spell, body)


def _yaml(text: str) -> str:
    body = json.dumps(text, ensure_ascii=False)[1:-1]
    numbered = body.encode("ascii", "backslashreplace").decode()
    return re.sub(
        r"\\\\|\\x..|\\u....|\\U.{8}",
        lambda it: it[0][:2] + it[0][2:].upper(),
        numbered,
    )


# Which quotes repr escapes depends on what else stands in the string.
SPELLINGS: Sequence[Callable[[str], str]] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: repr(f"{text}'\"")[1:-4],
    lambda text: ascii(text)[1:-1],
    lambda text: ascii(f"{text}'\"")[1:-4],
    lambda text: repr(_utf8(text))[2:-1],
    lambda text: repr(_utf8(text) + b"'\"")[2:-4],
    escape,
    lambda text: escape(text, quote=False),
    *(partial(_percent, safe=safe) for safe in ("", "/", "!~*'()", "!$&'()*+,;=:@/?")),
    _form,
    lambda text: _in_lower_case(_percent(text)),
)
"""How a text is written in JSON, in Python, in HTML and, by several rules, in URLs."""
INNERMOST: Sequence[Callable[[str], str]] = (
    # JSON that may stand in HTML: Jinja2's, Django's, Go's and Rails', Gson's
    partial(_json, numbered="<>&'", only_ascii=True),
    partial(_json, numbered="<>&", digits=UPPER, only_ascii=True),
    partial(_json, numbered="<>&"),
    partial(_json, numbered="<>&'="),
    # .NET's, Jackson's, PHP's
    partial(_json, numbered=f"\"'<>&+`{ABOVE_ASCII}", digits=UPPER),
    partial(_json, numbered=ABOVE_ASCII, digits=UPPER),
    lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1].replace("/", r"\/"),
    # HTML of Jinja2 and Go, of .NET and Rails, of PHP, of Java; XML
    partial(_markup, double="&#34;", single="&#39;"),
    partial(_markup, double="&quot;", single="&#39;"),
    partial(_markup, double="&quot;", single="&#039;"),
    partial(_markup, double="&quot;", single="&apos;"),
    partial(_markup, double="&quot;"),
    lambda text: _in_ascii(_markup(text)),
    lambda text: _in_ascii(_markup(text, double="&quot;")),
    lambda text: _in_ascii(_markup(text, double="&quot;", single="&#39;")),
    lambda text: _in_hexadecimal(_markup(text, double="&quot;", single="&#x27;")),
    lambda text: text.translate({at: f"&{it};" for at, it in codepoint2name.items()}),
    # URLs in latin-1; of aiohttp; forms of Java, of PHP, of .NET
    *(partial(_percent, safe=safe, encode=_latin) for safe in ("", "/")),
    partial(_form, safe="!$'()*,?/:@"),
    partial(_form_of_few, safe="*"),
    _form_of_few,
    partial(_form_of_few, safe="!*()"),
    lambda text: _in_lower_case(_form_of_few(text, "!*()")),
    # Lines of pprint's, each of which has quotes of its own
    lambda text: "'".join(repr(part)[1:-1] for part in text.split("'")),
    lambda text: "'".join(repr(_utf8(part))[2:-1] for part in text.split("'")),
    # YAML; quotes doubled, as in YAML, SQL and CSV; a shell's
    _yaml,
    lambda text: text.replace("'", "''"),
    lambda text: text.replace('"', '""'),
    lambda text: text.replace("'", "'\"'\"'"),
)
"""How other libraries and languages write what a test reads of them. What goes on with
it are the tools of the test itself, and so these are never the outer levels: they would
make thousands of spellings of one password."""
