"""How commands know their server over TLS, and how the server knows them.

As suites do: `pytest_botfarm.client.tls` reads the same variables.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from botfarm_server.cli.errors import UsageError

AUTHORITIES = ("BOTFARM_CA_FILE", "SSL_CERT_FILE")


def tls_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to trust, and which certificate to show.

    Raises:
        UsageError: a file that the environment names cannot be used.

    """
    named = next((it for it in AUTHORITIES if environment.get(it)), None)
    if named is None:
        context = httpx.create_ssl_context()
    else:
        with _blaming(named, environment[named]):
            context = ssl.create_default_context(cafile=environment[named])
    if certificate := environment.get("BOTFARM_CLIENT_CERT"):
        key = environment.get("BOTFARM_CLIENT_KEY")
        names = f"{certificate}, {key}" if key else certificate
        with _blaming("BOTFARM_CLIENT_CERT", names):
            context.load_cert_chain(certificate, key or None, password=lambda: "")
    return context


@contextmanager
def _blaming(variable: str, names: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of which those of ssl are some
        why = getattr(error, "reason", None) or error.strerror
        raise UsageError(f"{variable} ({names}) cannot be used: {why}.") from None
