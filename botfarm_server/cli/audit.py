"""`botfarm audit`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from botfarm_server.cli.client import PAGE_ROWS, connected
from botfarm_server.cli.finding import as_uuid
from botfarm_server.cli.options import DEFAULT_URL, AsJson, Url
from botfarm_server.cli.output import note, print_json, print_table
from botfarm_server.domain.audit import AuditAction, SubjectKind

TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


def audit(
    *,
    kind: Annotated[
        SubjectKind | None,
        typer.Option(help="Only changes of users, tokens, keys or leases."),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(help="Only those of this login, token's name, or id."),
    ] = None,
    action: Annotated[AuditAction | None, typer.Option(help="Only this one.")] = None,
    who: Annotated[
        str | None,
        typer.Option(help="Only by this token, by name or id, or kind of caller."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=TIME_FORMATS, help="In UTC.")
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(formats=TIME_FORMATS, help="In UTC; the first moment after."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=PAGE_ROWS, help="Most rows to show.")
    ] = 100,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Tell who changed users, tokens, keys and leases, newest first."""
    with connected(url) as client:
        page = client.first(
            "/audit",
            subject_kind=kind,
            **_named(subject, "subject_id", "subject"),
            action=action,
            **_named(who, "token_id", "who"),
            since=_in_utc(since),
            until=_in_utc(until),
            limit=limit,
        )
    if as_json:
        print_json(page.document)
    elif page.document:
        print_table(
            ("AT", "WHO", "FROM", "ACTION", "SUBJECT", "CHANGE"),
            map(_row, page.document),
        )
    else:
        note("No events match.")
    if page.next_cursor is not None:
        note(f"Only the newest {limit} are shown; --limit shows more.")


def _named(given: str | None, as_id: str, as_name: str) -> dict[str, str | None]:
    is_id = given is not None and as_uuid(given) is not None
    return {as_id if is_id else as_name: given}


def _in_utc(given: datetime | None) -> str | None:
    return None if given is None else given.replace(tzinfo=timezone.utc).isoformat()


def _row(event: Any) -> tuple[str, ...]:
    by, subject = event["by"], event["subject"]
    return (
        event["at"][:19].replace("T", " "),
        by["name"] or by["kind"].replace("_", " "),
        by["address"] or "-",
        event["action"],
        subject["name"] or subject["id"],
        "\n".join(_changes(event)),
    )


def _changes(event: Any) -> list[str]:
    """`domain: "regular" → "canary"`, a line for each fact."""
    before, after = event["before"] or {}, event["after"] or {}
    lines = []
    for name in {**before, **after}:
        known = [facts[name] for facts in (before, after) if name in facts]
        told = " → ".join(json.dumps(fact, ensure_ascii=False) for fact in known)
        lines.append(f"{name}: {told}")
    return lines if event["reason"] is None else [*lines, f"reason: {event['reason']}"]
