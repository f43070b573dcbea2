"""Running the app under uvicorn, as the command line and the embedded mode do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from botfarm_server.connections import bounded_protocol, ended_in_words, in_portions
from botfarm_server.handshakes import Handshakes

GRACE = 8
"""Seconds that calls under way have after SIGTERM; the process ends within 10."""
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than the pause between two
heartbeats, so that no request meets a connection that is just being closed."""


class CertificateFileError(Exception):
    """A file of a certificate cannot be used. The message is a sentence."""


def tls_options(
    certificate: Path,
    key: Path | None = None,
    password: str | None = None,
    client_authorities: Path | None = None,
) -> Mapping[str, Any]:
    """What makes uvicorn speak TLS, and ask for certificates where it is told whose.

    Raises:
        CertificateFileError: uvicorn would fail, or ask for a password.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _blaming(certificate, key):
        context.load_cert_chain(certificate, key, password=lambda: password or "")
    options: dict[str, Any] = {
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "ssl_keyfile_password": password,
    }
    if client_authorities is not None:
        with _blaming(client_authorities):
            context.load_verify_locations(client_authorities)
        options["ssl_ca_certs"] = str(client_authorities)
        options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
    return options


@contextmanager
def _blaming(*files: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of which those of ssl are some
        names = ", ".join(str(file) for file in files if file is not None)
        why = getattr(error, "reason", None) or error.strerror
        msg = f"{names}: this cannot be used for TLS ({why})."
        raise CertificateFileError(msg) from None


class Server(uvicorn.Server):
    """uvicorn that says on which address it listens, once it does."""

    def __init__(
        self,
        app: FastAPI,
        *,
        host: str,
        port: int,
        request_timeout: float,
        tls: Mapping[str, Any] | None = None,
        trusted_proxies: Sequence[str] = (),
        on_listening: Callable[[str], None] | None = None,
    ) -> None:
        """`tls` is what `tls_options` says."""
        _leave_no_core()
        self._on_listening = on_listening
        self._request_timeout = request_timeout
        super().__init__(
            uvicorn.Config(
                ended_in_words(in_portions(app)),
                host=host,
                port=port,
                http=bounded_protocol(request_timeout),
                log_config=None,
                access_log=False,
                server_header=False,
                # By default uvicorn would believe whoever calls from this machine.
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                timeout_graceful_shutdown=GRACE,
                timeout_keep_alive=KEEP_ALIVE,
                **(tls or {}),
            )
        )

    def _log_started_message(self, listeners: Sequence[socket.SocketType]) -> None:
        """Leave it to `on_listening`: uvicorn knows nothing of the TLS."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if (context := self.config.ssl) is not None:
            self.config.http_protocol_class = cast(
                "type[asyncio.Protocol]",
                Handshakes(
                    self.config.http_protocol_class,
                    context,
                    timeout=self._request_timeout,
                ),
            )
            self.config.ssl = None  # or connections would be there only behind it
        await super().startup(sockets=sockets)
        if self.started and self._on_listening is not None:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            scheme = "https" if self.config.is_ssl else "http"
            self._on_listening(f"{scheme}://{shown}:{port}")


def _leave_no_core() -> None:
    """Keep what the process knows, passwords and keys, out of a file if it crashes."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415  # not on Windows

        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))
