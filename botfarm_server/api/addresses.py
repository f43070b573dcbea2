"""Where servers listen, and from where calls come."""

from __future__ import annotations

import ipaddress

from fastapi import Request

MAXIMUM_ADDRESS = 255


def address_of(request: Request) -> str | None:
    """From where a call comes; what a proxy says of it may be of any length."""
    return request.client.host[:MAXIMUM_ADDRESS] if request.client else None


def is_loopback(host: str) -> bool:
    """Whether an address or a name that is listened on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
