"""Wrong tokens: told in the log, and counted for each address that sends them.

No right token is refused for what else comes from its address: one job with an old
token would stop all suites behind the same proxy. Nor is that needed, since a token of
178 random bits is not guessed at any speed. What has an end is the log that one address
can fill, and the answers that tell it why.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from botfarm_server.domain.errors import TooManyWrongTokensError, UnauthorizedError

MOST = 30
"""Wrong tokens of one address within a window that are told each by itself."""
WINDOW = 60.0
"""Seconds."""
LOOPBACK = "127.0.0.1"
MOST_ADDRESSES = 10_000
"""Beyond them, the one whose window began first is forgotten: some 2 MB."""

_log = structlog.get_logger("botfarm.access")


@dataclass
class _Window:
    began: float
    count: int = 0


@dataclass
class WrongTokens:
    """What this server process has seen of them."""

    clock: Callable[[], float] = time.monotonic
    _windows: OrderedDict[str, _Window] = field(default_factory=OrderedDict)

    def note(self, address: str, error: UnauthorizedError) -> None:
        """Count a token that was refused.

        Raises:
            TooManyWrongTokensError: there were too many from this address.

        """
        source, now = source_of(address), self.clock()
        window = self._windows.get(source)
        if window is None or now - window.began >= WINDOW:
            self._windows.pop(source, None)
            window = self._windows[source] = _Window(now)
            if len(self._windows) > MOST_ADDRESSES:
                self._windows.popitem(last=False)
        window.count += 1
        if window.count <= MOST:
            _log.warning("token refused", address=address, why=error.code)
            return
        if window.count == MOST + 1:
            _log.warning(
                "tokens refused; further ones are not told for a while",
                address=source,
                count=MOST,
                seconds=WINDOW,
            )
        raise TooManyWrongTokensError(
            retry_after=math.ceil(window.began + WINDOW - now)
        )


def source_of(address: str) -> str:
    """What one sender cannot change at will: of IPv6 the network, not the host, and of
    this machine, which has millions of addresses, one for all.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    if parsed.is_loopback:
        return LOOPBACK
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
