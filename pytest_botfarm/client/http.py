"""The effects of the conversations in terms of httpx, for both clients."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import httpx

from .exchange import Request, TransportFailure
from .tls import check_trust, tls_context

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which uvicorn ends it."""
ENDED_BY_SERVER = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for the URL, never one for loopback."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def headers_of(token: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return headers


def request_of(effect: Request, url: str, headers: dict[str, str]) -> httpx.Request:
    """The effect as httpx has it.

    Sent to the transport itself: httpx.Client would log each call at INFO, into the
    captured logs of whichever test runs.
    """
    connect = min(effect.timeout, effect.connect)
    timeout = httpx.Timeout(effect.timeout, connect=connect)
    return httpx.Request(
        effect.method,
        url + effect.path,
        headers=headers,
        content=json.dumps(effect.body).encode() if effect.body else None,
        extensions={"timeout": timeout.as_dict()},
    )


def warning_of(url: str, token: str | None) -> str | None:
    """What a person should know of the way to the server."""
    parts = urlsplit(url)
    if token is None or parts.scheme == "https" or parts.hostname in LOOPBACK:
        return None
    return (
        f"the token and all passwords go to {url} unencrypted, and whoever is on the "
        "way can read them: let the server be reached by https"
    )


def transport_options(url: str) -> dict[str, Any]:
    """Raises BotfarmError where the environment names a certificate that is none."""
    secure = urlsplit(url).scheme == "https"
    return {
        # Loading the certificates takes 20 ms, so not where none will be seen.
        "verify": tls_context(os.environ) if secure else False,
        "proxy": proxy_for(url),
        "limits": httpx.Limits(keepalive_expiry=KEEP_ALIVE),
    }


def failure_of(error: Exception, url: str) -> TransportFailure:
    """What to repeat a call after. Raises CertificateError where that is no use."""
    check_trust(error, url)
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, ENDED_BY_SERVER):
        if not str(error).strip():
            reason = "the connection broke"
        if url.startswith("https:"):
            # Servers of asyncio, ours among them, do not say why they end a
            # connection, and what others say is lost when a reset overtakes it.
            reason += " (does it ask for a certificate, BOTFARM_CLIENT_CERT?)"
    return TransportFailure(reason)
