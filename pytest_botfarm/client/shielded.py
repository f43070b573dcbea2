"""Connections that tools which patch the test process neither cut nor see.

Mocks of HTTP clients put doubles in the place of methods of httpx and of httpcore
(respx, pytest-httpx, vcrpy): a class of our own that names these methods once more, at
import, keeps those that it was defined with. Guards of the network replace what the
`socket` module names, and `connect` of its class (pytest-socket, pytest-recording): the
module `_socket` below it has both as they were.
"""

from __future__ import annotations

import _socket
import ssl
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx

# httpcore exports no stream. This one needs a connected socket and nothing else.
from httpcore._backends.sync import SyncStream

if TYPE_CHECKING:
    from socket import socket


class ShieldedTransport(httpx.HTTPTransport):
    """httpx's transport over connections of the kinds below.

    Those through a proxy are safe from guards of the network alone, not from mocks.
    """

    handle_request = httpx.HTTPTransport.handle_request

    def __init__(
        self, *, verify: ssl.SSLContext | bool, proxy: str | None, limits: httpx.Limits
    ) -> None:
        super().__init__(verify=verify, proxy=proxy, limits=limits)
        # httpx lets neither be handed to it.
        if proxy is None:
            self._pool = _Pool(verify, limits)
        else:
            self._pool._network_backend = _Network()  # noqa: SLF001


class _Pool(httpcore.ConnectionPool):
    handle_request = httpcore.ConnectionPool.handle_request

    def __init__(self, verify: ssl.SSLContext | bool, limits: httpx.Limits) -> None:
        super().__init__(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
        )
        self._new_connection = partial(
            _Connection,
            ssl_context=verify if isinstance(verify, ssl.SSLContext) else None,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Network(),
        )

    def create_connection(self, origin: httpcore.Origin) -> httpcore.HTTPConnection:
        return self._new_connection(origin)


class _Connection(httpcore.HTTPConnection):
    handle_request = httpcore.HTTPConnection.handle_request


class _Network(httpcore.NetworkBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> SyncStream:
        try:
            return SyncStream(_connected(host, port, timeout))
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


def shielded_socket(family: int, protocol: int = 0) -> socket:
    """A stream socket that connects to where it is told to."""
    # Of the class below `socket.socket`, which has all that is used here.
    return cast("socket", _socket.socket(family, _socket.SOCK_STREAM, protocol))


def _connected(host: str, port: int, timeout: float | None) -> socket:
    """As socket.create_connection."""
    problem = OSError(f"{host} has no address")
    found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)
    for family, _, protocol, _, address in found:
        connection = shielded_socket(family, protocol)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
            connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            problem = error
        except BaseException:  # Ctrl-C
            connection.close()
            raise
        else:
            return connection
    raise problem
