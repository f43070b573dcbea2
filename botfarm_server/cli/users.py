"""`botfarm users add|list|show|quarantine|restore|remove`.

The import has a module of its own.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated, Any, Literal
from uuid import UUID

import typer
from pydantic import ValidationError

from botfarm_server.api.schemas.users import UserIn
from botfarm_server.cli.client import FarmClient, connected
from botfarm_server.cli.errors import CommandError, RefusedError, UsageError
from botfarm_server.cli.finding import find_user
from botfarm_server.cli.importing import import_users, wire_user
from botfarm_server.cli.leases import holder_facts
from botfarm_server.cli.options import (
    DEFAULT_URL,
    AsJson,
    Domain,
    Env,
    Pool,
    ProjectId,
    Url,
    UserEnv,
    UserName,
    labels_of,
)
from botfarm_server.cli.output import (
    note,
    operator,
    pairs,
    print_facts,
    print_json,
    print_table,
)
from botfarm_server.cli.pools import farm
from botfarm_server.domain.models import UserState
from botfarm_server.poolfile import problems_of

app = typer.Typer(no_args_is_help=True, help="The test accounts of a server.")
app.command("import")(import_users)

Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="May be given several times."),
]


@app.command()
def add(
    login: Annotated[str, typer.Argument(help="What the account logs in with.")],
    *,
    env: Annotated[str, typer.Option(help="Its env, as stage.")],
    domain: Annotated[str, typer.Option(help="Its domain, as regular.")],
    project_id: Annotated[
        UUID | None, typer.Option(help="The project that it belongs to.")
    ] = None,
    label: Label = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from stdin.")
    ] = False,
    password_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take it from this environment variable."),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Add an account. Its password is asked for, and never an argument."""
    labels = labels_of(label or [])
    password = _password(from_stdin=password_stdin, variable=password_env)
    given = {"login": login, "password": password, "env": env, "domain": domain}
    try:
        user = UserIn.model_validate(
            {**given, "project_id": project_id, "labels": labels}
        )
    except ValidationError as error:
        found = "; ".join(f"{name}: {why}" for name, why in problems_of(error))
        raise UsageError(f"{found}.") from None
    with connected(url) as client:
        created = client.post("/users", wire_user(user))
    if as_json:
        print_json(created)
    else:
        note(f"Added {created['login']} to {created['env']}/{created['domain']}.")
        typer.echo(created["id"])


def _password(*, from_stdin: bool, variable: str | None) -> str:
    if from_stdin and variable is not None:
        raise UsageError("Give one of --password-stdin and --password-env.")
    if variable is not None:
        password = os.environ.get(variable)
        if password is None:
            raise UsageError(f"The environment variable {variable!r} is not set.")
        return password
    if from_stdin:
        # Bytes that are no UTF-8 become surrogates, which the check refuses.
        given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
        return given.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise UsageError(
            "There is no terminal to ask for the password. Use --password-stdin or "
            "--password-env NAME."
        )
    try:
        password = getpass.getpass("Password: ", stream=sys.stderr)
        again = getpass.getpass("Again: ", stream=sys.stderr)
    except EOFError:
        raise UsageError("No password was given.") from None
    if password != again:
        raise UsageError("The two passwords differ; nothing was added.")
    return password


@app.command("list")
def list_users(
    *,
    env: Env = None,
    domain: Domain = None,
    project_id: ProjectId = None,
    state: Annotated[
        UserState | None, typer.Option(help="Only users in this state.")
    ] = None,
    label: Label = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """List accounts, in the order of env and login."""
    labels = labels_of(label or [])
    params = {
        "env": env,
        "domain": domain,
        "project_id": None if project_id is None else str(project_id),
        "state": state,
        "label": [f"{name}={text}" for name, text in labels.items()] or None,
    }
    with farm(url, pool) as client:
        users = list(client.every("/users", **params))
    if as_json:
        print_json(users)
    elif users:
        print_table(("LOGIN", "ENV", "DOMAIN", "STATE", "LABELS"), map(_row, users))
    elif any(params.values()):
        note("No users match.")
    else:
        note("The farm has no users. Add some with `botfarm users import FILE`.")


@app.command()
def show(
    user: UserName,
    env: UserEnv = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """Show an account, and who holds it."""
    with farm(url, pool) as client:
        found = find_user(client, user, env)
        lease = _lease_of(client, found)
    if as_json:
        print_json({**found, "lease": lease})
        return
    facts = [
        ("login", found["login"]),
        ("id", found["id"]),
        ("env", found["env"]),
        ("domain", found["domain"]),
        ("project", found["project_id"] or "-"),
        ("labels", pairs(found["labels"]) or "-"),
        ("state", _state(found)),
        ("created", found["created_at"]),
        ("fence", str(found["fence"])),
    ]
    if found["quarantine_reason"]:
        facts.append(("quarantined", _quarantine(found)))
    if lease is not None:
        facts += [("lease", lease["id"]), *holder_facts(lease)]
    print_facts(facts)


def _lease_of(client: FarmClient, user: Any) -> Any | None:
    if user["lease_id"] is None:
        return None
    try:
        return client.get(f"/leases/{user['lease_id']}")
    except RefusedError as error:
        if error.code == "lease_not_found":
            return None  # It has ended, long enough ago to be forgotten.
        raise


@app.command()
def quarantine(
    user: UserName,
    *,
    reason: Annotated[
        str, typer.Option(help="Why, for whoever lists it or finds no other account.")
    ],
    env: UserEnv = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """Take an account out of rotation. Whoever holds it keeps it until the release."""
    with farm(url, pool) as client:
        found = find_user(client, user, env)
        changed = _move(client, found, "quarantine", reason)
    if as_json:
        print_json(changed)
    else:
        note(f"{_named(changed)} is out of rotation: `botfarm users restore` ends it.")
        if changed["lease_id"] is not None:
            note("It is held, and stays with its holder until the release.")


@app.command()
def restore(
    user: UserName,
    *,
    reason: Annotated[
        str | None, typer.Option(help="Why, for the server's log.")
    ] = None,
    env: UserEnv = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """Bring an account back into rotation. Whoever waits for it gets it at once."""
    with farm(url, pool) as client:
        found = find_user(client, user, env)
        changed = _move(client, found, "restore", reason)
    if as_json:
        print_json(changed)
    elif found["state"] == "quarantined":
        note(f"{_named(changed)} is back in rotation. It was out: {_quarantine(found)}")
    else:
        note(f"{_named(changed)} was in rotation already.")


def _move(
    client: FarmClient,
    user: Any,
    action: Literal["quarantine", "restore"],
    reason: str | None,
) -> Any:
    """An account once it is out of rotation, or back."""
    body = {"reason": reason, "author": operator()}
    return client.post(f"/users/{user['id']}/{action}", body)


@app.command()
def remove(user: UserName, env: UserEnv = None, url: Url = DEFAULT_URL) -> None:
    """Remove an account that nobody holds, with its history."""
    with connected(url) as client:
        found = find_user(client, user, env)
        try:
            client.delete(f"/users/{found['id']}")
        except RefusedError as error:
            if error.code != "user_locked":
                raise
            raise CommandError(
                f"{error} Wait for the end of its lease, or take it away with `botfarm "
                f"leases list --user {found['login']}` and `botfarm leases break`."
            ) from None
    note(f"Removed {found['login']} from {found['env']}/{found['domain']}.")


def _row(user: Any) -> tuple[str, ...]:
    state = _state(user)
    if user["state"] == "quarantined":
        state += f": {_quarantine(user)}"
    return user["login"], user["env"], user["domain"], state, pairs(user["labels"])


def _named(user: Any) -> str:
    return f"{user['login']} of {user['env']}/{user['domain']}"


def _state(user: Any) -> str:
    state = "idle" if user["idle"] and user["state"] == "held" else user["state"]
    return f"{state}, dirty" if user["dirty"] else str(state)


def _quarantine(user: Any) -> str:
    """Why it is out of rotation, and who said so."""
    author = f" (by {user['quarantined_by']})" if user["quarantined_by"] else ""
    return f"{user['quarantine_reason']}{author}"
