"""`botfarm serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from botfarm_server.cli.output import refuse


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [BOTFARM_HOST]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on. [BOTFARM_PORT]"),
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

    from botfarm_server.api.auth import is_loopback  # noqa: PLC0415
    from botfarm_server.app import create_app, set_up_logging  # noqa: PLC0415
    from botfarm_server.cli import schema  # noqa: PLC0415
    from botfarm_server.serving import Server  # noqa: PLC0415
    from botfarm_server.settings import SettingsError, load_settings  # noqa: PLC0415

    given = {"host": host, "port": port, "insecure_no_auth": insecure_no_auth or None}
    overrides = {name: value for name, value in given.items() if value is not None}
    try:
        settings = load_settings(overrides)
    except SettingsError as error:
        refuse(str(error), exit_code=2)
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
    set_up_logging(settings)
    log = structlog.get_logger("botfarm")
    server = Server(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        on_listening=lambda url: log.info("listening", url=url),
    )
    try:
        server.run()
    except SystemExit:
        # uvicorn has logged why it cannot start, and has an exit code of its own.
        raise typer.Exit(1) from None
