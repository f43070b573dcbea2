"""Users, tokens and leases of two projects at random, against a model of who may what.

The model knows at each step with which status a call is answered, and what of other
projects and of passwords the answer must not have. Time does not pass in it: what
expires is set back in the database.

With `BOTFARM_EXAMPLES_TIMES=50` it looks fifty times as far.
"""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import update
from support.thorough import thoroughly

from botfarm_server.domain.models import Role
from botfarm_server.store import tables

from .modelled import (
    BOOTSTRAP,
    LIVE,
    OURS,
    PROJECTS,
    ROLES,
    THEIRS,
    Answer,
    Lease,
    Project,
    Server,
    Token,
    User,
    chosen,
    password_of,
    serving,
    told,
)

POOL = {"env": "stage", "domain": "regular"}
ACTS = (
    *("ask",) * 4,
    *("ask_again", "renew", "give_back", "take_away", "expire_lease", "show_lease"),
    *("lose_to_another_project",),
    *("quarantine", "restore", "change_project", "acquire", "release"),
    *("create_user", "delete_user"),
    *("make_token", "end_token"),
    *("list_tokens", "list_users", "list_leases"),
)
"""By the names of methods. Who asks often has others wait."""
FEWEST_TOKENS = 4
"""So many stay, or soon nobody could do a thing."""

numbers = st.integers(0, 59)
projects = st.sampled_from(PROJECTS)


class Farm(RuleBasedStateMachine):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.server.empty()
        self.tokens = [Token(BOOTSTRAP, "admin", None)]
        self.users: list[User] = []
        self.leases: list[Lease] = []

    # What may be told

    def call(
        self,
        by: Token,
        needed: Role,
        method: str,
        path: str,
        body: Any = None,
        *,
        user: User | None = None,
        lease: Lease | None = None,
    ) -> Answer | None:
        """The answer, unless the call is refused for who makes it, as it must be."""
        answer = self.server.call(by.secret, method, path, body)
        refusal = self.refusal(by, needed, user, lease)
        self.check_what_is_told(by, answer, str(body))
        if refusal is not None:
            assert told(answer) == refusal
            return None
        return answer

    def refusal(
        self, by: Token, needed: Role, user: User | None, lease: Lease | None
    ) -> tuple[int, str] | None:
        if by.ended:
            return 401, by.ended
        if not by.may(needed):
            return 403, "forbidden"
        if user is not None and not by.knows(user.project):
            return 404, "user_not_found"
        if lease is not None:
            exists = self.sees if needed == "read" else self.owns
            if not exists(by, lease):
                return 404, "lease_not_found"
        return None

    def caller(self, number: int, needed: Role, lease: Lease | None = None) -> Token:
        """Any, but most often one that may call."""
        able = [it for it in self.tokens if not it.ended and it.may(needed)]
        owners = [lease.taken_by] * len(able) if lease else able
        return chosen([*able, *owners, *self.tokens], number)

    def sees(self, by: Token, lease: Lease) -> bool:
        return by.knows(lease.project) or lease.taken_by is by

    def owns(self, by: Token, lease: Lease) -> bool:
        return lease.taken_by is by or (by.may("admin") and self.sees(by, lease))

    def check_what_is_told(self, by: Token, answer: Answer, asked: str) -> None:
        """No password but that of a user that is leased, nothing of other projects."""
        text = answer.text
        is_grant = answer.request.method == "PUT" and answer.status_code == 200
        told_of = [it["login"] for it in answer.json()["users"]] if is_grant else []
        for user in self.users:
            assert user.login in told_of or password_of(user.login) not in text
        if by.project is None:
            return
        seen = [lease for lease in self.leases if self.sees(by, lease)]
        known = [user for user in self.users if by.knows(user.project)]
        logins = {user.login for user in known}
        logins |= {lease.user.login for lease in seen if lease.user}
        tests = {lease.test_id for lease in seen}
        tests |= {user.lease.test_id for user in known if user.lease}
        for user in self.users:
            assert user.login in logins or user.login in asked or user.login not in text
        for lease in self.leases:
            assert lease.test_id in tests or lease.test_id not in text

    # What is handed on

    def hand_on(self, user: User) -> None:
        """A user that is free goes to whoever has waited longest for such a one."""
        if user.state == "free":
            for lease in self.leases:
                if lease.state == "waiting" and lease.may_have(user):
                    lease.state, lease.user, user.lease = "held", user, lease
                    return

    def end(self, lease: Lease, state: str) -> None:
        was_held, lease.state = lease.state == "held", state
        if was_held and lease.user is not None:
            lease.user.lease = None
            self.hand_on(lease.user)

    def can_be_met(self, project: Project) -> bool:
        return any(
            project in {None, user.project}
            for user in self.users
            if not user.in_quarantine
        )

    # What happens

    # One rule: of several, Hypothesis leaves some out of each example.
    @rule(act=st.sampled_from(ACTS), number=numbers, which=numbers, project=projects)
    def somebody_calls(
        self, act: str, number: int, which: int, project: Project
    ) -> None:
        getattr(self, act)(number, which, project)

    # Tokens

    @initialize()
    def open_with_a_few(self) -> None:
        for role, project in (
            (1, None),
            (1, OURS),
            (1, THEIRS),
            (2, OURS),
            (0, THEIRS),
        ):
            self.make_token(0, role, project)
        for name, project in enumerate(PROJECTS):
            self.create_user(0, name, project)
        self.ask(0, 0, OURS)

    def make_token(self, number: int, which: int, project: Project) -> None:
        by = self.caller(number, "admin")
        role = chosen(ROLES, which)
        body = {"name": "tested", "role": role, "project_id": project}
        answer = self.call(by, "admin", "POST", "/tokens", body)
        if answer is not None and self.makes(by, project, answer):
            made = answer.json()
            assert made["project_id"] == (project or by.project)
            self.tokens.append(
                Token(made["token"], role, made["project_id"], made["id"])
            )

    def makes(self, by: Token, project: Project, answer: Answer) -> bool:
        """Whether it may make something of this project, and so it was answered."""
        if by.knows(project or by.project):
            return True
        assert told(answer) == (403, "forbidden")
        return False

    def list_tokens(self, number: int, which: int, project: Project) -> None:
        by = self.caller(number, "admin")
        answer = self.call(by, "admin", "GET", "/tokens")
        if answer is not None:
            stored = [it for it in self.tokens if it.id and by.knows(it.project)]
            assert [it["id"] for it in answer.json()] == [it.id for it in stored]

    def end_token(self, number: int, which: int, project: Project) -> None:
        if sum(not token.ended for token in self.tokens) > FEWEST_TOKENS:
            ended = chosen(self.tokens[1:], which)
            if number % 2:
                self.expire_token(ended)
            else:
                self.revoke(self.caller(number, "admin"), ended)

    def revoke(self, by: Token, ended: Token) -> None:
        answer = self.call(by, "admin", "DELETE", f"/tokens/{ended.id}")
        if answer is None:
            return
        if not by.knows(ended.project):
            assert told(answer) == (404, "token_not_found")
            return
        assert answer.status_code == 204
        ended.ended = "token_revoked"

    def expire_token(self, ended: Token) -> None:
        tokens = tables.tokens
        past = update(tokens).values(expires_at=tokens.c.created_at)
        self.server.execute(past.where(tokens.c.id == uuid.UUID(ended.id)))
        ended.ended = ended.ended or "token_expired"

    # Users

    def create_user(self, number: int, which: int, project: Project) -> None:
        by, login = self.caller(number, "admin"), f"login-{which % 6}"
        body = {**POOL, "login": login, "password": password_of(login)}
        answer = self.call(
            by, "admin", "POST", "/users", {**body, "project_id": project}
        )
        if answer is None or not self.makes(by, project, answer):
            return
        if any(user.login == login for user in self.users):
            assert told(answer) == (400, "duplicate_user")
            return
        assert answer.status_code == 201
        self.users.append(User(answer.json()["id"], login, project or by.project))
        self.hand_on(self.users[-1])

    def list_users(self, number: int, which: int, project: Project) -> None:
        by = self.caller(number, "read")
        answer = self.call(by, "read", "GET", "/users")
        if answer is not None:
            known = {it.login: it for it in self.users if by.knows(it.project)}
            states = {it["login"]: it["state"] for it in answer.json()}
            assert states == {login: user.state for login, user in known.items()}
            sizes = self.call(by, "read", "GET", "/pools")
            rotating = [it for it in known.values() if not it.in_quarantine]
            pools = [{**POOL, "users": len(rotating)}] if rotating else []
            assert sizes is not None
            assert sizes.json()["pools"] == pools

    def change_project(self, number: int, which: int, project: Project) -> None:
        by = self.caller(number, "admin")
        self.move(by, chosen(self.users, which), project)

    def move(self, by: Token, user: User, project: Project) -> None:
        body = {"project_id": project}
        answer = self.call(by, "admin", "PATCH", f"/users/{user.id}", body, user=user)
        if answer is not None and self.makes(by, project, answer):
            assert answer.status_code == 200
            user.project = project or by.project
            self.hand_on(user)

    def quarantine(self, number: int, which: int, project: Project) -> None:
        by, user = self.caller(number, "lease"), chosen(self.users, which)
        path, body = f"/users/{user.id}/quarantine", {"reason": "locked out"}
        answer = self.call(by, "lease", "POST", path, body, user=user)
        if answer is None:
            return
        if not by.may("admin") and (not user.lease or user.lease.taken_by is not by):
            assert told(answer) == (403, "forbidden")
            return
        assert answer.status_code == 200
        user.in_quarantine = True

    def restore(self, number: int, which: int, project: Project) -> None:
        by, user = self.caller(number, "admin"), chosen(self.users, which)
        answer = self.call(by, "admin", "POST", f"/users/{user.id}/restore", user=user)
        if answer is not None:
            assert answer.status_code == 200
            user.in_quarantine = False
            self.hand_on(user)

    def delete_user(self, number: int, which: int, project: Project) -> None:
        by, user = self.caller(number, "admin"), chosen(self.users, which)
        answer = self.call(by, "admin", "DELETE", f"/users/{user.id}", user=user)
        if answer is None:
            return
        if user.lease:
            assert told(answer) == (409, "user_locked")
            return
        assert answer.status_code == 204
        self.users.remove(user)
        if not self.users:
            self.create_user(0, which, project)

    # Leases

    def lease(self, which: int) -> Lease:
        """Any, but most often one that is live."""
        live = [it for it in self.leases if it.state in LIVE]
        return chosen([*live, *live, *self.leases], which)

    def ask(self, number: int, which: int, project: Project) -> None:
        self.ask_for(self.caller(number, "lease"), project)

    def ask_for(self, by: Token, project: Project) -> None:
        name = str(uuid.UUID(int=1000 + len(self.leases)))
        test_id = f"test-{len(self.leases)}-of-them"
        lease = Lease(name, test_id, by, project or by.project)
        answer = self.put(by, lease)
        if answer is None:
            return
        if not by.knows(lease.project) or not self.can_be_met(lease.project):
            assert told(answer) == (404, "no_such_pool")
            return
        self.leases.append(lease)
        free = [it for it in self.users if it.state == "free" and lease.may_have(it)]
        if not free:
            self.check_waiting(lease, answer)
            return
        assert answer.status_code == 200
        granted = answer.json()["users"][0]["login"]
        [lease.user] = [user for user in free if user.login == granted]
        lease.user.lease, lease.state = lease, "held"
        self.check_held(lease, answer)

    def put(self, by: Token, lease: Lease, known: Lease | None = None) -> Answer | None:
        want = {**POOL, "project_id": lease.project}
        body = {"wants": [want], "holder": {"test_id": lease.test_id}}
        return self.call(by, "lease", "PUT", f"/leases/{lease.id}", body, lease=known)

    def check_held(self, lease: Lease, answer: Answer) -> None:
        assert answer.status_code == 200
        assert lease.user is not None
        [told_of] = answer.json()["users"]
        assert told_of["login"] == lease.user.login
        assert told_of["password"] == password_of(lease.user.login)
        lease.fence = answer.json()["fence"]

    def check_waiting(self, lease: Lease, answer: Answer) -> None:
        """Its place is behind those alone who could take the same user.

        No user in quarantine is in its way: nobody gets that one next.
        """
        assert answer.status_code == 202
        before = self.leases[: self.leases.index(lease)]
        rivals = [
            it
            for it in before
            if it.state == "waiting"
            and (None in {it.project, lease.project} or it.project == lease.project)
        ]
        assert answer.json()["place"] == len(rivals) + 1
        in_the_way = [
            it for it in self.users if it.state == "held" and lease.may_have(it)
        ]
        told_of = {it["login"] for it in answer.json()["blockers"]}
        assert told_of == {user.login for user in in_the_way}

    def ask_again(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        by = self.caller(number, "lease", lease)
        # Without a project the same wants are of the caller's project, if it has one.
        is_outside = lease.project is not None and not by.knows(lease.project)
        answer = self.put(by, lease, None if is_outside else lease)
        if answer is None:
            return
        hopeless = not self.can_be_met(lease.project)
        is_live = lease.state in LIVE
        if is_outside:
            assert told(answer) == (404, "no_such_pool")
        elif lease.taken_by is not by:
            assert told(answer) == (403, "forbidden")  # an admin ends it, and no more
        elif lease.is_first_api and is_live:
            assert told(answer) == (409, "lease_mismatch")
        elif lease.state == "held":
            self.check_held(lease, answer)
        elif lease.state == "waiting" and not hopeless:
            self.check_waiting(lease, answer)
        elif lease.state == "waiting" or (lease.is_hopeless and hopeless):
            assert told(answer) == (404, "no_such_pool")
            lease.state, lease.is_hopeless = "cancelled", True
        else:
            assert told(answer) == (410, "lease_ended")

    def renew(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        self.renew_by(self.caller(number, "lease", lease), lease)

    def renew_by(self, by: Token, lease: Lease) -> None:
        body = {"leases": [{"id": lease.id, "fence": max(lease.fence, 1)}]}
        answer = self.call(by, "lease", "POST", "/leases/renew", body)
        if answer is not None:
            [renewed] = answer.json()["leases"]
            state = lease.state if self.owns(by, lease) else "unknown"
            if state == "held" and not lease.fence:
                state = "unknown"  # granted meanwhile, and not asked about since
            assert renewed["state"] == state

    def give_back(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        by = self.caller(number, "lease", lease)
        path = f"/leases/{lease.id}"
        answer = self.call(by, "lease", "DELETE", path, lease=lease)
        if answer is None:
            return
        if lease.state in {"expired", "revoked"}:
            assert told(answer) == (410, "lease_ended")
            return
        assert answer.status_code == 204
        ends = {"held": "released", "waiting": "cancelled"}
        self.end(lease, ends.get(lease.state, lease.state))

    def take_away(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        self.break_lease(self.caller(number, "admin", lease), lease)

    def break_lease(self, by: Token, lease: Lease) -> None:
        path = f"/leases/{lease.id}/break"
        body = {"reason": "stuck", "holder_is_dead": True}
        answer = self.call(by, "admin", "POST", path, body, lease=lease)
        if answer is None:
            return
        if lease.state not in LIVE:
            assert told(answer) == (410, "lease_ended")
            return
        self.end(lease, "revoked")
        assert (answer.status_code, answer.json()["state"]) == (200, lease.state)

    def lose_to_another_project(
        self, number: int, which: int, project: Project
    ) -> None:
        """A user is taken from its holder, who asks when another project has it."""
        held = [it for it in self.leases if it.state == "held" and it.taken_by.project]
        if held:
            lease, by = chosen(held, which), self.tokens[0]
            elsewhere = THEIRS if lease.taken_by.project == OURS else OURS
            self.break_lease(by, lease)
            assert lease.user is not None
            self.move(by, lease.user, elsewhere)
            self.ask_for(by, elsewhere)
            self.renew_by(lease.taken_by, lease)

    def expire_lease(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        if lease.state != "held":
            return
        leases = tables.leases
        past = update(leases).values(expires_at=leases.c.granted_at)
        self.server.execute(past.where(leases.c.id == uuid.UUID(lease.id)))
        self.server.look_for_lapsed()
        self.end(lease, "expired")

    def list_leases(self, number: int, which: int, project: Project) -> None:
        by = self.caller(number, "read")
        answer = self.call(by, "read", "GET", "/leases?state=all&limit=1000")
        if answer is not None:
            seen = {it.id: it.state for it in self.leases if self.sees(by, it)}
            assert {it["id"]: it["state"] for it in answer.json()} == seen

    def show_lease(self, number: int, which: int, project: Project) -> None:
        lease = self.lease(which)
        by = self.caller(number, "read", lease)
        answer = self.call(by, "read", "GET", f"/leases/{lease.id}", lease=lease)
        if answer is not None:
            assert answer.json()["state"] == lease.state

    # The first API

    def acquire(self, number: int, which: int, project: Project) -> None:
        by, user = self.caller(number, "lease"), chosen(self.users, which)
        test_id = f"test-{len(self.leases)}-of-them"
        path, body = f"/users/{user.id}/acquire", {"holder": {"test_id": test_id}}
        answer = self.call(by, "lease", "POST", path, body, user=user)
        if answer is None:
            return
        if user.state != "free":
            assert told(answer) == (409, "user_locked")
            return
        assert answer.status_code == 200
        acquired = answer.json()
        lease = Lease(acquired["lease_id"], test_id, by, user.project, "held")
        lease.fence, lease.user, lease.is_first_api = acquired["fence"], user, True
        user.lease = lease
        self.leases.append(lease)

    def release(self, number: int, which: int, project: Project) -> None:
        by, user = self.caller(number, "lease"), chosen(self.users, which)
        path = f"/users/{user.id}/release"
        answer = self.call(by, "lease", "POST", path, user=user)
        if answer is None:
            return
        lease = user.lease
        if lease and not (lease.is_first_api and self.owns(by, lease)):
            assert told(answer) == (409, "user_locked")
            return
        assert answer.status_code == 200
        if lease:
            self.end(lease, "released")


def test_whoever_calls_gets_what_the_model_says(database_url: str) -> None:
    with serving(database_url) as server:
        farm: Any = partial(Farm, server)  # it takes whatever makes a machine
        run_state_machine_as_test(farm, settings=thoroughly(examples=15, steps=30))
