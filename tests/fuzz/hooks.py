"""Texts of the formats that only Botfarm knows, for Schemathesis."""

from __future__ import annotations

import base64
import json

import schemathesis
from hypothesis import strategies as st

LONGEST_WAIT, MAXIMUM_WAIT = 0.05, 60.0
"""Seconds: of a call here, and of what the server takes."""
LETTERS = "abcxyzABC0189 _-.@+'éßøłжщ漢字مد"
"""Of several scripts: those that share letters by their look come in words apart."""

names = st.text(LETTERS, min_size=1, max_size=40).map(str.strip).filter(bool)
logins = st.lists(
    st.one_of(st.text("abcxyzé019", min_size=1), st.text("жщия", min_size=1)),
    min_size=1,
    max_size=5,
).map(".".join)
texts = st.text(LETTERS + "\t\n\u200b\U0001f600", min_size=1, max_size=200)
secrets = st.text(LETTERS + "\x07\n", min_size=1, max_size=24)
labels = st.tuples(names, names).map("=".join)
cursors = st.tuples(st.just("stage"), names).map(
    lambda place: base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
)

for name, strategy in {
    "name": names,
    "login": logins,
    "text": texts,
    "password": secrets,
    "label": labels,
    "cursor": cursors,
}.items():
    schemathesis.openapi.format(name, strategy)


@schemathesis.hook  # type: ignore[untyped-decorator]  # mypy does not see it
def before_call(context: object, case: schemathesis.Case, kwargs: object) -> None:
    """Let no call wait for long: other calls are worth more than the same one."""
    wait = case.body.get("wait") if isinstance(case.body, dict) else None
    if isinstance(wait, int | float) and LONGEST_WAIT < wait <= MAXIMUM_WAIT:
        case.body = {**case.body, "wait": LONGEST_WAIT}
