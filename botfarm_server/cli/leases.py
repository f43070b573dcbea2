"""`botfarm leases list|show|break`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from botfarm_server.cli.client import PAGE_ROWS
from botfarm_server.cli.finding import SHORT_ID, find_lease_id, find_user
from botfarm_server.cli.options import DEFAULT_URL, AsJson, Pool, Url
from botfarm_server.cli.output import (
    in_words,
    note,
    operator,
    pairs,
    print_facts,
    print_json,
    print_table,
)
from botfarm_server.cli.pools import farm
from botfarm_server.domain.models import LeaseSelection

app = typer.Typer(no_args_is_help=True, help="Who holds which accounts.")

LeaseName = Annotated[
    str, typer.Argument(metavar="LEASE", help="Its id, or how the id begins.")
]


@app.command("list")
def list_leases(
    *,
    state: Annotated[
        LeaseSelection,
        typer.Option(help="Which leases; live are those waiting or held."),
    ] = "live",
    run_id: Annotated[str | None, typer.Option(help="Only those of this run.")] = None,
    worker_id: Annotated[
        str | None, typer.Option(help="Only those of this worker.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Only those of this login or user id.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(help="The env of --user, if several have its login.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=PAGE_ROWS, help="Most rows to show.")
    ] = 100,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """List leases, newest first."""
    with farm(url, pool) as client:
        page = client.first(
            "/leases",
            state=state,
            run_id=run_id,
            worker_id=worker_id,
            user_id=None if user is None else find_user(client, user, env)["id"],
            limit=limit,
        )
    if as_json:
        print_json(page.document)
    elif page.document:
        print_table(
            ("LEASE", "STATE", "USERS", "TEST", "WORKER", "HELD FOR", "EXPIRES IN"),
            map(_row, page.document),
        )
    else:
        note("No leases match." if state != "live" else "No leases are live.")
    if page.next_cursor is not None:
        note(f"Only the newest {limit} are shown; --limit shows more.")


@app.command()
def show(
    lease: LeaseName,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """Show a lease: its users, its holder and how it ended."""
    with farm(url, pool) as client:
        found = client.get(f"/leases/{find_lease_id(client, lease)}")
    if as_json:
        print_json(found)
        return
    facts = [
        ("lease", found["id"]),
        ("state", _state(found)),
        ("wants", "\n".join(map(_want, found["wants"]))),
        ("users", "\n".join(map(_user, found["users"])) or "-"),
        *holder_facts(found),
        ("asked at", found["created_at"]),
        ("waited", in_words(found["waited"])),
    ]
    if found["ended_at"] is not None:
        facts.append(("ended at", found["ended_at"]))
    facts += [
        (name.replace("_", " "), found[name])
        for name in ("outcome", "end_reason")
        if found[name]
    ]
    print_facts(facts)


@app.command("break")
def break_lease(
    lease: LeaseName,
    reason: Annotated[
        str | None, typer.Option(help="What its holder is told. Default: who did it.")
    ] = None,
    holder_is_dead: Annotated[
        bool,
        typer.Option(
            "--holder-is-dead", help="Nobody uses its users: hand them on at once."
        ),
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    pool: Pool = None,
) -> None:
    """Take a lease from its holder, whose test fails."""
    with farm(url, pool) as client:
        lease_id = find_lease_id(client, lease)
        body = {
            "reason": reason or f"broken by {operator()} on the command line",
            "holder_is_dead": holder_is_dead,
        }
        broken = client.post(f"/leases/{lease_id}/break", body)
    if as_json:
        print_json(broken)
    else:
        logins = ", ".join(user["login"] for user in broken["users"]) or "no users"
        note(f"Broke lease {lease_id} ({logins}).")
        if broken["users"] and not (holder_is_dead or broken["kept_at"]):
            note(
                "They rest until its holder must have heard of it; with "
                "--holder-is-dead they need not."
            )


def holder_facts(lease: Any) -> list[tuple[str, str]]:
    """Who holds a lease and for how long, as names and texts."""
    holder = lease["holder"]
    named = {
        "test": "test_id",
        "worker": "worker_id",
        "run": "run_id",
        "host": "host",
        "job": "job_url",
    }
    return [
        *((name, holder[key]) for name, key in named.items() if holder[key]),
        ("held for", in_words(lease["held_for"])),
        *([("kept since", lease["kept_at"])] if lease["kept_at"] else []),
        ("expires in", _expiry(lease)),
    ]


def _row(lease: Any) -> tuple[str, ...]:
    holder = lease["holder"]
    users = "\n".join(user["login"] for user in lease["users"])
    held_for = in_words(lease["held_for"])
    if lease["state"] == "waiting":
        held_for = f"waits {in_words(lease['waited'])}"
    return (
        lease["id"][:SHORT_ID],
        _state(lease),
        users or "\n".join(map(_want, lease["wants"])),
        holder["test_id"] or "-",
        holder["worker_id"] or "-",
        held_for,
        _expiry(lease),
    )


def _state(lease: Any) -> str:
    if lease["state"] == "held" and lease["kept_at"]:
        return "kept"
    return "idle" if lease["idle"] else str(lease["state"])


def _expiry(lease: Any) -> str:
    if lease["state"] == "held" and lease["expires_in"] is None:
        return "never"
    return in_words(lease["expires_in"])


def _want(want: Any) -> str:
    text = f"{want['env']}/{want['domain']}"
    if want["labels"]:
        text += f" with {pairs(want['labels'])}"
    return text if want["count"] == 1 else f"{want['count']} of {text}"


def _user(user: Any) -> str:
    return (
        f"{user['login']} ({user['env']}/{user['domain']}, fence {user['fence']}, "
        f"id {user['id']})"
    )
