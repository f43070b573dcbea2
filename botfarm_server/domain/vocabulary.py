"""The names that a deployment knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from botfarm_server.domain.errors import InvalidRequestError
from botfarm_server.domain.models import Want


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that envs and domains may have in this deployment."""

    envs: Sequence[str]
    domains: Sequence[str]

    def check(self, env: str | None, domain: str | None, *, where: str = "") -> None:
        """Raise InvalidRequestError with the allowed values if a name is unknown."""
        errors = [
            (f"{where}{name}", f"{given!r} is not one of {', '.join(allowed)}")
            for name, given, allowed in (
                ("env", env, self.envs),
                ("domain", domain, self.domains),
            )
            if given is not None and given not in allowed
        ]
        if errors:
            raise InvalidRequestError(errors)

    def check_wants(self, wants: Sequence[Want]) -> None:
        """The same for the wants of a lease, the first unknown name first."""
        for index, want in enumerate(wants):
            self.check(want.env, want.domain, where=f"wants[{index}].")
