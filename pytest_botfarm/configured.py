"""A process's session, as its config, and pytest-xdist's controller, say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import uuid4

import pytest

from .embedded import EmbeddedServer, Endpoint
from .fixtures import SESSION
from .holding import Identity
from .limits import LIMIT
from .scrubbing import masker_of
from .session import LeaseSession
from .settings import read_settings, read_token
from .telling import say

RUN_ID, RENDEZVOUS = "botfarm_run_id", "botfarm_rendezvous"
FORESEES = "botfarm_foresees"
"""What the controller of pytest-xdist tells its workers."""


def session_of(config: pytest.Config) -> LeaseSession:
    """The process's session, made when first asked for."""
    if SESSION not in config.stash:
        config.stash[SESSION] = _make_session(config)
    return config.stash[SESSION]


def _make_session(config: pytest.Config) -> LeaseSession:
    workerinput = getattr(config, "workerinput", None)
    identity = (
        Identity()
        if workerinput is None
        # The controller tells no run where there is nowhere to lease from.
        else Identity(workerinput.get(RUN_ID, uuid4().hex), workerinput["workerid"])
    )
    make = partial(
        LeaseSession,
        identity,
        masker=masker_of(config),
        say=_way_to_say(config),
        limit=lambda: config.stash.get(LIMIT, None),
    )
    try:
        settings = read_settings(config)
    except pytest.UsageError as error:
        # Raised where a test wants an account: here it might be a worker's start,
        # whose failure pytest-xdist tells as "no tests ran".
        return make(error, None)
    if settings.url is not None:
        url = settings.url
        return make(settings, lambda: Endpoint(url, read_token()))
    if settings.pool is None:
        return make(settings, None)
    if workerinput is not None:
        from .xdist import ask  # noqa: PLC0415  # only in a worker that leases

        rendezvous = workerinput[RENDEZVOUS]
        return make(settings, lambda: ask(rendezvous))
    server = EmbeddedServer(settings.pool)
    return make(settings, server.endpoint, embedded=server)


def _way_to_say(config: pytest.Config) -> Callable[[str], None]:
    """A worker of pytest-xdist has no terminal: its controller has."""
    rendezvous = getattr(config, "workerinput", {}).get(RENDEZVOUS)
    if rendezvous is None:
        return partial(say, config)
    from .xdist import tell  # noqa: PLC0415  # as above

    return partial(tell, rendezvous, "say")
