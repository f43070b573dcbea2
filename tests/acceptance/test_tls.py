"""A server that speaks TLS, and clients that are let in by their certificates."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest
from support.certificates import Authority
from support.farm import write_pool
from support.servers import TOKEN, ServerProcess

from botfarm_server.cli.main import run
from pytest_botfarm import AsyncBotfarmClient, BotfarmClient, BotfarmError
from pytest_botfarm.client.http import failure_of

MOST_FILES = 128
FEW_FILES = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({MOST_FILES}, {MOST_FILES}))
from botfarm_server.cli.main import run
run()
"""
GREETING = bytes.fromhex("16030100c8010000c40303")


@dataclass(frozen=True)
class Secured:
    url: str
    authority: Authority
    other: Authority
    client: tuple[Path, Path]


@pytest.fixture(scope="module")
def secured(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    """A server whose key has a password, and which asks clients for certificates."""
    folder = tmp_path_factory.mktemp("tls")
    authority, other = Authority(folder, "authority"), Authority(folder, "other")
    certificate, key = authority.issue("server", "the key's own")
    database = folder / "farm.sqlite3"
    database.write_bytes(migrated_sqlite.read_bytes())
    settings = {
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        "BOTFARM_SSL_CERTFILE": str(certificate),
        "BOTFARM_SSL_KEYFILE": str(key),
        "BOTFARM_SSL_KEYFILE_PASSWORD": "the key's own",
        "BOTFARM_SSL_CA_CERTS": str(authority.path),
    }
    with ServerProcess(f"sqlite:///{database}", settings) as server:
        yield Secured(server.url, authority, other, authority.issue("client"))


@pytest.fixture(autouse=True)
def _environment(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for who is let in."""
    certificate, key = secured.client
    monkeypatch.setenv("BOTFARM_URL", secured.url)
    monkeypatch.setenv("BOTFARM_TOKEN", TOKEN)
    monkeypatch.setenv("BOTFARM_CA_FILE", str(secured.authority.path))
    monkeypatch.setenv("BOTFARM_CLIENT_CERT", str(certificate))
    monkeypatch.setenv("BOTFARM_CLIENT_KEY", str(key))


def commanded(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def refusals(capsys: pytest.CaptureFixture[str]) -> tuple[str, str, str]:
    """What the clients and a command say."""
    with pytest.raises(BotfarmError) as refused, BotfarmClient().lease("stage", "x"):
        pass
    with pytest.raises(BotfarmError) as refused_too:
        anyio.run(lease_asynchronously)
    capsys.readouterr()
    assert commanded("users", "list") in {1, 2}
    return str(refused.value), str(refused_too.value), capsys.readouterr().err


async def lease_asynchronously() -> str:
    async with AsyncBotfarmClient().lease("stage", "regular") as user:
        return user.login


def test_who_has_a_certificate_leases_and_commands(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under SSL_CERT_FILE as well, and with certificate and key in one file."""
    assert secured.url.startswith("https://")
    pool = write_pool(tmp_path / "botfarm.toml", "alice")
    assert commanded("users", "import", str(pool)) == 0
    with BotfarmClient().lease("stage", "regular") as user:
        assert user.password == "password of alice"
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in secured.client))
    monkeypatch.setenv("BOTFARM_CLIENT_CERT", str(both))
    monkeypatch.delenv("BOTFARM_CLIENT_KEY")
    monkeypatch.delenv("BOTFARM_CA_FILE")
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority.path))
    assert anyio.run(lease_asynchronously) == "alice"
    assert commanded("users", "list") == 0


def test_a_server_of_another_authority_is_not_spoken_to(
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BOTFARM_CA_FILE", str(secured.other.path))
    for said in refusals(capsys):
        assert secured.url in said
        assert "not accepted: self-signed certificate in certificate chain" in said
        assert "BOTFARM_CA_FILE" in said


def refuse(context: ssl.SSLContext, connection: socket.socket, *, heard: bool) -> None:
    """Shake hands, and end; by a reset at once where nobody is to hear why."""
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    greeting = context.wrap_bio(received, to_send, server_side=True)
    while True:
        try:
            greeting.do_handshake()
        except ssl.SSLWantReadError:
            connection.sendall(to_send.read())
            if not (said := connection.recv(65536)):
                return
            received.write(said)
        except ssl.SSLError:
            break
    if heard:
        connection.sendall(to_send.read())
        while connection.recv(1024):
            pass
    at_once = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)


@contextmanager
def refusing(secured: Secured, *, heard: bool) -> Iterator[str]:
    """A server that tells clients why it lets them not in; that of asyncio does not.

    Args:
        secured: whose authority it knows.
        heard: that they read it; otherwise the connection is reset before they do.

    """
    authority = str(secured.authority.path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*secured.authority.issue("outspoken"))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                refuse(context, connection, heard=heard)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_client_without_a_certificate_is_told_what_it_needs(
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BOTFARM_CLIENT_CERT")
    assert commanded("users", "list") == 1
    assert "BOTFARM_CLIENT_CERT" in capsys.readouterr().err
    for heard in (True, False):
        with refusing(secured, heard=heard) as url:
            monkeypatch.setenv("BOTFARM_URL", url)
            for said in refusals(capsys):
                assert "BOTFARM_CLIENT_CERT" in said
    silence = httpx.RemoteProtocolError("Server disconnected")
    assert "BOTFARM_CLIENT_CERT" in failure_of(silence, secured.url).reason


def test_a_file_that_cannot_be_used_is_named(
    secured: Secured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A locked key among them: nobody is asked for its password."""
    locked = secured.authority.issue("locked", "password")
    for variable, path in (
        ("BOTFARM_CA_FILE", tmp_path / "missing.pem"),
        ("BOTFARM_CA_FILE", secured.client[1]),
        ("BOTFARM_CLIENT_CERT", locked[0]),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(path))
            patch.setenv("BOTFARM_CLIENT_KEY", str(locked[1]))
            for said in refusals(capsys):
                assert f"{variable} ({path}" in said
                assert "cannot be used" in said


def test_handshakes_that_do_not_end_keep_nobody_out(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    """Nor do they when half of a greeting has come, and as many as there are files."""
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    settings = {
        "BOTFARM_BOOTSTRAP_TOKEN": TOKEN,
        "BOTFARM_SSL_CERTFILE": str(certificate),
        "BOTFARM_SSL_KEYFILE": str(key),
    }
    context = ssl.create_default_context(cafile=str(authority.path))
    with (
        ExitStack() as strangers,
        ServerProcess(
            f"sqlite:///{migrated_sqlite}", settings, program=("-c", FEW_FILES)
        ) as server,
    ):
        url = httpx.URL(server.url)
        for number in range(MOST_FILES):
            stranger = socket.create_connection((url.host, url.port or 0))
            strangers.enter_context(stranger)
            stranger.sendall(GREETING[: number % len(GREETING)])
        for _ in range(3):
            assert httpx.get(f"{server.url}/health", verify=context).status_code == 200
            client = httpx.Client(base_url=server.url, verify=context, timeout=5.0)
        client.close()


def test_serve_refuses_certificates_that_cannot_be_used(
    secured: Secured, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = secured.client
    _, locked = secured.authority.issue("locked", "password")
    cert = f"--ssl-certfile={certificate}"
    for options, named in (
        ([f"--ssl-keyfile={key}"], "--ssl-certfile"),
        (["--ssl-certfile=missing.pem"], "missing.pem"),
        ([cert], str(certificate)),
        ([cert, f"--ssl-keyfile={locked}"], str(locked)),
        ([cert, f"--ssl-keyfile={key}", f"--ssl-ca-certs={key}"], str(key)),
    ):
        assert commanded("serve", *options) == 2
        assert named in capsys.readouterr().err
