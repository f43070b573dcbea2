"""The API as the commands call it: every way to fail becomes a sentence."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from botfarm_server.cli.errors import (
    NoAnswerError,
    NotBotfarmError,
    RefusedError,
    UsageError,
)
from botfarm_server.cli.output import note
from botfarm_server.cli.tls import tls_context

PROTOCOL = "1"
PROTOCOL_HEADER = "Botfarm-Protocol"
CURSOR_HEADER = "Botfarm-Next-Cursor"
PAGE_ROWS = 1_000

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
"""Seconds for an answer; a server whose database is stuck answers within 10."""


@dataclass(frozen=True, slots=True)
class Token:
    text: str = field(repr=False)
    source: str
    """Where it came from, to be named when it is refused."""


@dataclass(frozen=True, slots=True)
class Page:
    document: Any
    next_cursor: str | None


@contextmanager
def connected(url: str) -> Iterator[FarmClient]:
    """A client of the server at `url`, with the token that the environment has.

    Nothing is sent yet.

    Raises:
        UsageError: the URL or the token cannot be used.

    """
    address = _checked(url)
    token = read_token(os.environ)
    if token and address.scheme == "http" and not _is_loopback(address.host):
        note(
            f"botfarm: the token goes to {address} unencrypted, and whoever is on the "
            "way can read it: let the server be reached by https."
        )
    client = FarmClient(address, token)
    try:
        yield client
    finally:
        client.close()


def read_token(environment: Mapping[str, str]) -> Token | None:
    """The token of BOTFARM_TOKEN, or else of the file that BOTFARM_TOKEN_FILE names.

    Raises:
        UsageError: the file cannot be read, or the token cannot be sent.

    """
    if text := environment.get("BOTFARM_TOKEN", "").strip():
        token = Token(text, "BOTFARM_TOKEN")
    elif path := environment.get("BOTFARM_TOKEN_FILE"):
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            why = error.strerror or "it cannot be read"
            raise UsageError(f"BOTFARM_TOKEN_FILE names {path}: {why}.") from None
        except UnicodeDecodeError:
            text = ""
        token = Token(text, f"the file {path}, which BOTFARM_TOKEN_FILE names,")
    else:
        return None
    if not token.text or not token.text.isascii() or not token.text.isprintable():
        raise UsageError(f"{token.source} holds no token: printable ASCII is expected.")
    return token


class FarmClient:
    """One server. Every method raises ServerError when it does not do as asked."""

    def __init__(self, url: httpx.URL, token: Token | None) -> None:
        self._url = url
        self._token = token
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token.text}"} if token else {},
            # A proxy of the environment does not reach this machine's loopback.
            trust_env=not _is_loopback(url.host),
            # Loading the certificates takes 20 ms, so not where none will be seen.
            verify=tls_context(os.environ) if url.scheme == "https" else False,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self.page(path, **params).document

    def page(self, path: str, **params: Any) -> Page:
        """A part of a list; the cursor leads to the next one, if there is more."""
        given = {name: it for name, it in params.items() if it is not None}
        response = self._send("GET", path, params=given)
        return Page(self._document(response), response.headers.get(CURSOR_HEADER))

    def first(self, path: str, *, limit: int, **params: Any) -> Page:
        """The first rows of a list, of as many pages as they take."""
        rows: list[Any] = []
        cursor: str | None = None
        while True:
            page = self.page(path, limit=limit - len(rows), cursor=cursor, **params)
            rows += page.document
            cursor = page.next_cursor
            if cursor is None or len(rows) == limit:
                return Page(rows, cursor)

    def every(self, path: str, **params: Any) -> Iterator[Any]:
        """All rows of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.page(path, limit=PAGE_ROWS, cursor=cursor, **params)
            yield from page.document
            cursor = page.next_cursor
            if cursor is None:
                return

    def post(self, path: str, body: Any, *, timeout: float | None = None) -> Any:
        response = self._send("POST", path, json=body, timeout=timeout)
        return self._document(response)

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def _send(
        self, method: str, path: str, *, timeout: float | None = None, **rest: Any
    ) -> httpx.Response:
        timeout = timeout or READ_TIMEOUT
        limits = httpx.Timeout(timeout, connect=CONNECT_TIMEOUT)
        try:
            response = self._http.request(
                method, f"/api/v1{path}", timeout=limits, **rest
            )
        except httpx.ConnectTimeout:
            raise self._no_answer(f"no answer within {CONNECT_TIMEOUT:.0f} s") from None
        except httpx.TimeoutException:
            raise NoAnswerError(
                f"The server at {self._url} did not answer within {timeout:.0f} s. It "
                "may still do what it was asked; look before you ask again."
            ) from None
        except httpx.ConnectError as error:
            raise self._no_answer(_reason(error)) from None
        except httpx.RequestError as error:
            hint = " Does it ask for a certificate, BOTFARM_CLIENT_CERT?"
            raise NoAnswerError(
                f"The connection to {self._url} broke ({_reason(error)})."
                f"{hint if self._url.scheme == 'https' else ''} It may have "
                "done what it was asked; look before you ask again."
            ) from None
        self._check(response)
        return response

    def _document(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise NotBotfarmError(
                f"The server at {self._url} gave an answer that is not JSON. Check "
                "any proxy in front of it."
            ) from None

    def _no_answer(self, why: str) -> NoAnswerError:
        return NoAnswerError(
            f"No server can be reached at {self._url} ({why}). Start one with `botfarm "
            "serve`, or name another one with --url or BOTFARM_URL."
        )

    def _check(self, response: httpx.Response) -> None:
        protocol = response.headers.get(PROTOCOL_HEADER)
        if protocol is None:
            raise NotBotfarmError(
                f"What answers at {self._url} is not a Botfarm server (status "
                f"{response.status_code} without the header {PROTOCOL_HEADER}). Check "
                "--url or BOTFARM_URL, and any proxy in front of the server."
            )
        if protocol != PROTOCOL:
            raise NotBotfarmError(
                f"The server at {self._url} speaks protocol {protocol!r}, and this "
                f"command {PROTOCOL!r}. Install the version of pytest-botfarm that "
                "the server has."
            )
        if not response.is_success:
            raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> RefusedError:
        try:
            facts = response.json()
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            facts = {}
        default = f"The server answered with status {response.status_code}."
        message = str(facts.get("detail", default))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            message = self._unauthorized(facts)
        try:
            retry_after = float(response.headers.get("Retry-After", "1"))
        except ValueError:
            retry_after = 1.0
        return RefusedError(
            message,
            status=response.status_code,
            code=str(facts.get("error", "")),
            facts=facts,
            retry_after=retry_after,
        )

    def _unauthorized(self, facts: Mapping[str, Any]) -> str:
        if self._token is None:
            return (
                f"The server at {self._url} asks for a token. Set BOTFARM_TOKEN to it, "
                "or BOTFARM_TOKEN_FILE to the name of a file that holds it."
            )
        if facts.get("error") != "unauthorized" and "detail" in facts:
            return f"{self._token.source.rstrip(',')}: {facts['detail']}"
        return (
            f"The server at {self._url} does not accept the token of "
            f"{self._token.source.rstrip(',')}. Ask whoever runs it for the right one."
        )


def _checked(given: str) -> httpx.URL:
    example = "Example: http://127.0.0.1:8000"
    try:
        url = httpx.URL(given.strip())
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"--url or BOTFARM_URL is not a URL. {example}") from None
    if url.userinfo:
        # It would be shown in messages, and the server would not read it.
        raise UsageError(
            "--url or BOTFARM_URL holds a user name or a password. Leave it out: "
            "the token comes from BOTFARM_TOKEN or BOTFARM_TOKEN_FILE."
        )
    if url.scheme not in {"http", "https"} or not url.host:
        raise UsageError(f"{given!r} is not the URL of a server. {example}")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: httpx.RequestError) -> str:
    """What the system said, without the layers around it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not accepted: {cause.verify_message}; "
                "BOTFARM_CA_FILE names a file with the authority that has signed it"
            )
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
            return "it accepts no client but with a certificate: BOTFARM_CLIENT_CERT"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
