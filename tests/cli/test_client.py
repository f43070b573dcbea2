"""What a command says when the server cannot do as asked: a sentence, no traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from botfarm_server.api import headers
from botfarm_server.cli import client

from .conftest import Botfarm, Farm, Serve


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Something on a port that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_protocol_is_the_servers() -> None:
    assert client.PROTOCOL == headers.PROTOCOL
    assert client.PROTOCOL_HEADER == headers.PROTOCOL_HEADER


def test_no_server_names_the_address_and_what_to_do(
    environment: None, botfarm: Botfarm
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ran = botfarm("users", "list", "--url", url)
    assert ran.exit_code == 1
    assert ran.err == (
        f"botfarm: No server can be reached at {url} (Connection refused). Start one "
        "with `botfarm serve`, or name another one with --url or BOTFARM_URL.\n"
    )


def test_a_name_that_does_not_resolve_is_told_as_such(
    environment: None, botfarm: Botfarm
) -> None:
    ran = botfarm("users", "list", "--url", "http://botfarm.invalid")
    assert ran.exit_code == 1
    assert "No server can be reached at http://botfarm.invalid (" in ran.err


@pytest.mark.parametrize("status", [200, 301, 404, 502])
def test_another_server_is_not_taken_for_botfarm(
    status: int, environment: None, botfarm: Botfarm
) -> None:
    with answering(status, b"<html>", Location="http://elsewhere") as url:
        ran = botfarm("users", "list", "--url", url)
    assert ran.exit_code == 1
    assert f"What answers at {url} is not a Botfarm server (status {status}" in ran.err


def test_another_protocol_asks_for_the_matching_version(
    environment: None, botfarm: Botfarm
) -> None:
    with answering(200, b"[]", Botfarm_Protocol="2") as url:
        ran = botfarm("users", "list", "--url", url)
    assert ran.exit_code == 1
    assert "speaks protocol '2', and this command '1'" in ran.err


@pytest.mark.parametrize("body", [b"", b"[1]", b"not json"])
def test_an_error_without_a_sentence_tells_its_status(
    body: bytes, environment: None, botfarm: Botfarm
) -> None:
    headers = {"Botfarm_Protocol": "1", "Retry_After": "soon"}
    with answering(500, body, **headers) as url:
        ran = botfarm("users", "list", "--url", url)
    assert (ran.exit_code, ran.err) == (
        1,
        "botfarm: The server answered with status 500.\n",
    )


def test_an_answer_that_is_no_json_is_told_as_such(
    environment: None, botfarm: Botfarm
) -> None:
    with answering(200, b"<html>", Botfarm_Protocol="1") as url:
        ran = botfarm("users", "list", "--url", url)
    assert ran.exit_code == 1
    assert "an answer that is not JSON" in ran.err


def test_a_server_that_does_not_answer_in_time_is_told_as_such(
    environment: None, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botfarm_server.cli.client.READ_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ran = botfarm("users", "list", "--url", url)
    assert ran.exit_code == 1
    assert f"The server at {url} did not answer within" in ran.err


def test_a_connection_that_breaks_is_told_as_such(
    environment: None, botfarm: Botfarm
) -> None:
    def hang_up(listening: socket.socket) -> None:
        listening.settimeout(60)
        connection, _ = listening.accept()
        with connection:
            connection.recv(65_536)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up, args=(listening,))
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        ran = botfarm("users", "list", "--url", url)
        thread.join()
    assert ran.exit_code == 1
    assert f"The connection to {url} broke" in ran.err


def test_a_server_that_cannot_serve_yet_says_why(
    environment: None, serve: Serve, botfarm: Botfarm
) -> None:
    running = serve(wait=False, BOTFARM_MIGRATE_AT_START="false")
    ran = botfarm("users", "list", "--url", running.url)
    assert ran.exit_code == 1
    assert "The server cannot use its database" in ran.err or (
        "Run `botfarm db upgrade`" in ran.err
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://farm.example.com", "is not the URL of a server"),
        ("127.0.0.1:8000", "is not the URL of a server"),
        ("http://", "is not the URL of a server"),
        ("http://farm:port", "is not a URL"),
        ("http://me:s3cret@farm.example.com", "holds a user name or a password"),
    ],
)
def test_a_url_that_cannot_be_used_is_wrong_use(
    url: str, told: str, environment: None, botfarm: Botfarm
) -> None:
    ran = botfarm("leases", "list", "--url", url)
    assert ran.exit_code == 2
    assert told in ran.err
    assert "s3cret" not in ran.err


def test_a_missing_token_and_a_wrong_one_are_told_apart(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BOTFARM_TOKEN")
    ran = botfarm("users", "list")
    assert ran.exit_code == 1
    assert "asks for a token. Set BOTFARM_TOKEN" in ran.err
    monkeypatch.setenv("BOTFARM_TOKEN", "a-wrong-s3cret")
    ran = botfarm("users", "list")
    assert ran.exit_code == 1
    assert "does not accept the token of BOTFARM_TOKEN" in ran.err
    assert "s3cret" not in ran.err


def test_the_token_may_come_from_a_file(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("token-of-the-tests-0123456789\n")
    monkeypatch.delenv("BOTFARM_TOKEN")
    monkeypatch.setenv("BOTFARM_TOKEN_FILE", str(path))
    assert botfarm("users", "list").exit_code == 0
    path.write_text("wrong\n")
    assert f"the token of the file {path}" in botfarm("users", "list").err
    for content in (b"", b"\xff\xfe", b"two\nlines"):
        path.write_bytes(content)
        ran = botfarm("users", "list")
        assert ran.exit_code == 2
        assert "holds no token" in ran.err
    path.unlink()
    ran = botfarm("users", "list")
    assert ran.exit_code == 2
    assert f"BOTFARM_TOKEN_FILE names {path}: No such file" in ran.err


def test_a_token_on_the_command_line_is_not_taken(
    environment: None, botfarm: Botfarm
) -> None:
    for given in (["--token", "s3cret"], ["--token=s3cret"]):
        ran = botfarm("users", "list", *given)
        assert ran.exit_code == 2
        assert "every user of this machine can read" in ran.err
        assert "Set BOTFARM_TOKEN" in ran.err
        assert "s3cret" not in ran.err
    ran = botfarm("serve", "--bootstrap-token", "s3cret")
    assert (ran.exit_code, "BOTFARM_BOOTSTRAP_TOKEN_FILE" in ran.err) == (2, True)


def test_a_token_that_goes_unencrypted_is_told(farm: Farm, botfarm: Botfarm) -> None:
    assert "unencrypted" not in botfarm("users", "list").err
    # A name of this machine that does not look like one.
    url = farm.url.replace("127.0.0.1", "127.1")
    ran = botfarm("users", "list", "--json", "--url", url)
    assert (ran.exit_code, ran.json) == (0, [])
    assert f"goes to {url} unencrypted" in ran.err


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert botfarm("users", "list").exit_code == 0


def test_a_list_goes_on_where_a_page_ends_before_its_limit(botfarm: Botfarm) -> None:
    told = {headers.PROTOCOL_HEADER: "1", headers.NEXT_CURSOR_HEADER: "7"}
    with answering(200, b'[{"id": "a"}]', **told) as url:
        ran = botfarm("leases", "list", "--limit", "3", "--json", "--url", url)
    assert ran.json == [{"id": "a"}] * 3
