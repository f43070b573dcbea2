"""Which tokens this process has let in before: their calls have lanes of their own.

Made-up tokens would each have one else, and together more than a server can do.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from botfarm_server.domain.access import Caller

MOST = 10_000
"""Beyond them, the one that was not sent for the longest is forgotten: some 5 MB."""


@dataclass
class KnownTokens:
    """By digests. It says whose turn a call waits for, and never who may call."""

    _callers: OrderedDict[str, Caller] = field(default_factory=OrderedDict)

    def caller_of(self, digest: str) -> Caller | None:
        """Whom the token of this digest was, when it was let in the last time."""
        caller = self._callers.get(digest)
        if caller is not None:
            self._callers.move_to_end(digest)
        return caller

    def note(self, digest: str, caller: Caller) -> None:
        """Know a token that was let in."""
        if caller.kind not in {"token", "bootstrap_token"}:
            return  # a server that is open to all takes any
        self._callers[digest] = caller
        self._callers.move_to_end(digest)
        if len(self._callers) > MOST:
            self._callers.popitem(last=False)

    def forget(self, digest: str) -> None:
        """Know a token no longer, which was refused."""
        self._callers.pop(digest, None)
