"""Texts of the formats that only Botfarm knows, for Schemathesis."""

from __future__ import annotations

import base64
import json
import uuid
from itertools import cycle

import schemathesis
from hypothesis import strategies as st
from support.fuzzing import FREE_POOL, TAKEN_POOL

LONGEST_WAIT, MAXIMUM_WAIT = 0.05, 60.0
"""Seconds: of a call here, and of what the server takes."""
LONGEST_NAME, LONGEST_TEXT, LONGEST_PASSWORD = 255, 2_000, 72
"""Characters that fields take."""
LETTERS = "abcxyzABC0189 _-.@+'éßøłжщ漢字مد"
"""Of several scripts."""


def bounded(texts: st.SearchStrategy[str], *longest: int) -> st.SearchStrategy[str]:
    """Among them texts as long as fields end at, which a search would take long for."""
    lengths = {length + more for length in longest for more in (-1, 0, 1)}
    return texts | st.sampled_from(sorted({1, 2, *lengths})).map(lambda it: "a" * it)


names = st.text(LETTERS, min_size=1, max_size=40).map(str.strip).filter(bool)
# In words of one script each, and of letters that look like none of the other.
logins = st.lists(
    st.one_of(st.text("fkmtzñ019", min_size=1), st.text("жщия", min_size=1)),
    min_size=1,
    max_size=5,
).map(".".join)
texts = st.text(LETTERS + "\t\n\u200b\U0001f600", min_size=1, max_size=200)
secrets = st.text(LETTERS + "\x07\n", min_size=1, max_size=24)
labels = st.sampled_from(
    ["a=b", "role=admin", "a=".ljust(254, "é"), "a=".ljust(255, "b")]
)
cursors = st.sampled_from(["a", "free-7", "é жщ"]).map(
    lambda login: base64.urlsafe_b64encode(
        json.dumps(["stage", login]).encode()
    ).decode()
)
"""Few enough that it is seen at once which lengths there are not."""

for name, strategy in {
    "name": bounded(names, LONGEST_NAME),
    "login": bounded(logins, LONGEST_NAME),
    "text": bounded(texts, LONGEST_NAME, LONGEST_TEXT),
    "password": bounded(secrets, LONGEST_PASSWORD),
    "label": labels,
    "cursor": cursors,
}.items():
    schemathesis.openapi.format(name, strategy)


_pools = cycle([FREE_POOL, TAKEN_POOL])


@schemathesis.hook  # type: ignore[untyped-decorator]  # mypy does not see it
def before_call(context: object, case: schemathesis.Case, kwargs: object) -> None:
    """Let no call wait for long: other calls are worth more than the same one.

    Where calls follow one another, let wants be granted and wait in turn: nobody has
    the users of those that are made up, and the lease of the example has ended.
    """
    if not isinstance(case.body, dict):
        return
    wait = case.body.get("wait")
    if isinstance(wait, int | float) and LONGEST_WAIT < wait <= MAXIMUM_WAIT:
        case.body = {**case.body, "wait": LONGEST_WAIT}
    if "wants" in case.body and _leads_on(case):
        case.body = {**case.body, "wants": [next(_pools)]}
        case.path_parameters = {"lease_id": str(uuid.uuid4())}


def _leads_on(case: schemathesis.Case) -> bool:
    made = case.meta
    return made is not None and (
        (made.phase.name.value, made.generation.mode.value) == ("stateful", "positive")
    )
