"""The effects of the conversations in terms of httpx, for both clients."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import httpx

from .core import Request, TransportFailure

KEEP_ALIVE = 4.0
"""Seconds an idle connection is kept: less than the 5 s after which uvicorn ends it."""
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


def transport_options(url: str) -> dict[str, Any]:
    secure = urlsplit(url).scheme == "https"
    return {
        # Loading the certificates takes 20 ms, so not where none will be seen.
        "verify": httpx.create_ssl_context() if secure else False,
        "proxy": proxy_for(url),
        "limits": httpx.Limits(keepalive_expiry=KEEP_ALIVE),
    }


def failure_of(error: httpx.TransportError) -> TransportFailure:
    return TransportFailure(str(error).strip() or type(error).__name__)
