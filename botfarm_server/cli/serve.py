"""`botfarm serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from botfarm_server.cli.output import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botfarm_server.settings import Settings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [BOTFARM_HOST]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on. [BOTFARM_PORT]"),
    ] = None,
    ssl_certfile: Annotated[
        Path | None,
        typer.Option(help="Certificate, to serve https. [BOTFARM_SSL_CERTFILE]"),
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option(help="Its private key. [BOTFARM_SSL_KEYFILE]")
    ] = None,
    ssl_ca_certs: Annotated[
        Path | None,
        typer.Option(
            help="Authorities of clients, each of which then needs a certificate. "
            "[BOTFARM_SSL_CA_CERTS]"
        ),
    ] = None,
    insecure_no_auth: Annotated[
        bool,
        typer.Option(
            "--insecure-no-auth", help="Serve beyond loopback without any token."
        ),
    ] = False,
) -> None:
    """Run the server, configured by BOTFARM_* and DATABASE_URL or a .env file."""
    # Imported here: it takes a second, which no other command should cost.
    import structlog  # noqa: PLC0415

    from botfarm_server.app import create_app, set_up_logging  # noqa: PLC0415
    from botfarm_server.serving import Server  # noqa: PLC0415
    from botfarm_server.settings import SettingsError, load_settings  # noqa: PLC0415

    given = {
        "host": host,
        "port": port,
        "ssl_certfile": ssl_certfile,
        "ssl_keyfile": ssl_keyfile,
        "ssl_ca_certs": ssl_ca_certs,
        "insecure_no_auth": insecure_no_auth or None,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    try:
        settings = load_settings(overrides)
    except SettingsError as error:
        refuse(str(error), exit_code=2)
    _check_guarded(settings)
    tls = _tls(settings)
    set_up_logging(settings)
    log = structlog.get_logger("botfarm")
    server = Server(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        request_timeout=settings.request_timeout,
        tls=tls,
        trusted_proxies=settings.trusted_proxies,
        on_listening=lambda url: log.info("listening", url=url),
    )
    try:
        server.run()
    except SystemExit:
        # uvicorn has logged why it cannot start, and has an exit code of its own.
        raise typer.Exit(1) from None


def _check_guarded(settings: Settings) -> None:
    """Refuse to serve other machines without a token, unless that was said."""
    from botfarm_server.api.addresses import is_loopback  # noqa: PLC0415  # the same
    from botfarm_server.cli import schema  # noqa: PLC0415  # the same

    is_guarded = (
        settings.admin_token() is not None
        or settings.insecure_no_auth
        or is_loopback(settings.host)
        or schema.has_tokens(settings.database_url)
    )
    if not is_guarded:
        refuse(
            f"{settings.host} can be reached from other machines, and there is no "
            "token. Make one with `botfarm tokens create NAME --role admin "
            "--database-url URL`, set BOTFARM_BOOTSTRAP_TOKEN to a long random text, "
            "listen on 127.0.0.1, or say --insecure-no-auth.",
            exit_code=2,
        )


def _tls(settings: Settings) -> Mapping[str, Any] | None:
    """Refuse certificates that cannot be used."""
    from botfarm_server.serving import (  # noqa: PLC0415  # the same
        CertificateFileError,
        tls_options,
    )

    if settings.ssl_certfile is None:
        if settings.ssl_keyfile or settings.ssl_ca_certs:
            refuse("TLS needs a certificate: --ssl-certfile.", exit_code=2)
        return None
    password = settings.ssl_keyfile_password
    try:
        return tls_options(
            settings.ssl_certfile,
            settings.ssl_keyfile,
            password.get_secret_value() if password else None,
            settings.ssl_ca_certs,
        )
    except CertificateFileError as error:
        refuse(str(error), exit_code=2)
