"""The hand-on step: whatever frees a user ends here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from botfarm_server.domain.lifecycle import LeaseTimes, first_expiry
from botfarm_server.domain.matching import matches
from botfarm_server.domain.models import Candidate, LeaseId, Pool, UserId
from botfarm_server.domain.queueing import Waiter, plan_grants, users_needed
from botfarm_server.store import candidates, grants, queue
from botfarm_server.store.engine import Connection

FIRST_PAGE, PAGE = 2, 64
"""Waiters looked at together: most hand-ons end with the first of them."""
MOST_HOPELESS = 1_000
"""Kinds of waiters that are passed over together: each is named to the database."""


async def hand_on(
    connection: Connection,
    pools: Collection[Pool],
    *,
    now: datetime,
    times: LeaseTimes,
    projects: Collection[UUID | None] = (None,),
    kept: dict[LeaseId, Sequence[Candidate]] | None = None,
) -> dict[LeaseId, float]:
    """Grant the free users of `pools` to the oldest waiters that can be met in full.

    The caller has the queue lock, and `now` is the database's clock behind it. The
    grants are part of the caller's transaction, and so is the word to the replicas
    that hold the waiters' calls. `projects` are those whose users may have become free:
    waiters that want those of another one alone are passed over. Returns the waiters
    that were granted, and how many seconds each has waited; `kept`, if given, receives
    the users that are free but kept, by the waiter for which they are.
    """
    granted: dict[LeaseId, float] = {}
    taken: set[UserId] = set()
    pools, projects = set(pools), set(projects)
    hopeless: set[UUID] = set()
    after, limit = 0, FIRST_PAGE
    while pools:
        page = await queue.waiters(
            connection,
            pools,
            after=after,
            limit=limit,
            besides=hopeless,
            projects=projects,
        )
        if not page:
            break
        # Who is not asked about any more ends with the loop's next look.
        waiters = [queued.waiter for queued in page if queued.poll_by > now]
        wanted = {want.pool for waiter in waiters for want in waiter.wants}
        named = {want.project_id for waiter in waiters for want in waiter.wants}
        if not wanted <= pools or not (named <= projects or None in projects):
            # One that waits in several pools, or for any project, may find a user there
            # whose rest has ended meanwhile: earlier waiters for that come first.
            pools |= wanted
            projects |= named
            after, limit = 0, FIRST_PAGE
            continue
        free = await candidates.free_for(
            connection,
            [want for waiter in waiters for want in waiter.wants],
            now=now,
            limit=users_needed(waiters),
            besides=taken,
        )
        plan = plan_grants(waiters, free, now=now, patience=times.patience)
        ttls = {queued.waiter.id: queued.ttl for queued in page}
        if plan.grants:
            given = [
                (grant, first_expiry(now, ttls[grant.lease_id], times))
                for grant in plan.grants
            ]
            await grants.grant_waiting(connection, given, now=now)
            since = {waiter.id: waiter.since for waiter in waiters}
            granted |= {
                grant.lease_id: (now - since[grant.lease_id]).total_seconds()
                for grant in plan.grants
            }
        if kept is not None:
            for name, its in plan.kept.items():
                kept[name] = [*kept.get(name, ()), *its]
        if len(hopeless) < MOST_HOPELESS:
            met = {*(grant.lease_id for grant in plan.grants), *plan.kept}
            hopeless |= {
                queued.kind
                for queued in page
                if queued.poll_by > now
                and queued.waiter.id not in met
                and not _can_use(queued.waiter, plan.left)
            }
        taken |= {user.id for user in free} - {user.id for user in plan.left}
        if len(page) < limit or not await candidates.any_free_and_waited_for(
            connection, pools, now=now, besides=taken, projects=projects
        ):
            break
        after, limit = page[-1].number, PAGE
    if granted:
        await queue.announce(connection, list(granted))
    return granted


def _can_use(waiter: Waiter, left: Sequence[Candidate]) -> bool:
    """Whether a waiter could take or keep any of what a plan has left.

    If one that was given nothing cannot, then no user at all that it could use is left
    for the rest of the step: of each want it was shown as many as all others of the
    plan could take, and those that it needs itself.
    """
    return any(matches(want, user) for want in waiter.wants for user in left)
