"""How a client knows its server over TLS, and how the server knows the client."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from .errors import BotfarmError, CertificateError

AUTHORITIES = ("BOTFARM_CA_FILE", "SSL_CERT_FILE")
"""The stronger first. SSL_CERT_FILE and SSL_CERT_DIR are for all that the process
speaks to, and httpx reads them."""
REFUSALS = ("CERTIFICATE", "UNKNOWN_CA")
"""In the name of an alert by which a server refuses a client's certificate, or none."""


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to trust, and which certificate to show, by the environment.

    Raises:
        BotfarmError: a file that it names cannot be used.

    """
    named = next((it for it in AUTHORITIES if environ.get(it)), None)
    if named is None:
        context = httpx.create_ssl_context()
    else:
        with _blaming(named, environ[named]):
            context = ssl.create_default_context(cafile=environ[named])
    if certificate := environ.get("BOTFARM_CLIENT_CERT"):
        key = environ.get("BOTFARM_CLIENT_KEY")
        names = f"{certificate}, {key}" if key else certificate
        with _blaming("BOTFARM_CLIENT_CERT", names):
            # Without a password there would be a prompt for it, amid a test.
            context.load_cert_chain(certificate, key or None, password=lambda: "")
    return context


@contextmanager
def _blaming(variable: str, names: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of which those of ssl are some
        why = getattr(error, "reason", None) or error.strerror
        raise BotfarmError(f"{variable} ({names}) cannot be used: {why}.") from None


def check_trust(error: BaseException, url: str) -> None:
    """Raise CertificateError where no repetition would help against a failed call."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise CertificateError(
            f"The certificate of the Botfarm server at {url} is not accepted: "
            f"{cause.verify_message}. BOTFARM_CA_FILE (or SSL_CERT_FILE) names a file "
            "with the authority that has signed it.",
            url=url,
        ) from None
    if cause is not None and any(it in (cause.reason or "") for it in REFUSALS):
        raise CertificateError(
            f"The Botfarm server at {url} asks for a certificate, and accepts none of "
            f"this client's ({cause.reason}). BOTFARM_CLIENT_CERT names a file with "
            "one, and BOTFARM_CLIENT_KEY its key where that is in another file.",
            url=url,
        ) from None
