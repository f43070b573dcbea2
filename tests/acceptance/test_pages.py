"""Pages under their Content-Security-Policy, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from support.beside import NEWEST, ROOT
from support.provided import needs_set_up
from support.servers import TOKEN, ServerProcess

from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

PYTHON = ROOT / NEWEST / "bin" / "python"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
LIMIT = 120.0
"""Seconds after which it hangs; three would do on a machine of its own."""

LISTEN = """
window.violations = []
document.addEventListener("securitypolicyviolation", event => {
    violations.push(event.effectiveDirective + " " + event.blockedURI)
})
"""
"""Has a page note what its policy keeps from it."""
BROWSE = """
import json, sys
from playwright.sync_api import sync_playwright

STAND_IN = '''
window.SwaggerUIBundle = options => {
    document.querySelector(options.dom_id).innerHTML = "<p style='margin: 0'>drawn</p>"
    fetch(options.url).then(answer => { document.title = answer.status })
    const foreign = document.createElement("script")
    foreign.textContent = "document.body.append('broken in')"
    document.body.append(foreign)
}
SwaggerUIBundle.presets = {}
'''
chromium, body, headers, listen = json.load(sys.stdin)

def answer(route):
    url = route.request.url
    if url == "http://farm/docs":
        route.fulfill(body=body, headers=headers)
    elif url.endswith(".js"):
        route.fulfill(body=STAND_IN, content_type="text/javascript")
    else:
        route.fulfill(body="{}", content_type="application/json")

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=chromium, args=["--no-sandbox"]
    )
    page = browser.new_page()
    page.add_init_script(listen)
    page.route("**", answer)
    page.goto("http://farm/docs")
    page.wait_for_function("document.title === '200'")
    told = page.inner_text("body").strip(), page.evaluate("violations")
    print(json.dumps(told))
    browser.close()
"""
"""Opens the page of its input, with something small in the place of Swagger UI."""

LOOK = """
import json, sys
from playwright.sync_api import Error, sync_playwright

chromium, url, token, held, listen = json.load(sys.stdin)
called = []
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=chromium, args=["--no-sandbox"]
    )
    page = browser.new_page()
    page.add_init_script(listen)
    page.on("request", lambda request: called.append(request.url))
    page.goto(url + "/board/")
    page.fill("#token", "wrong")
    page.click("#ask button")
    page.wait_for_selector("#news.alarm:not(:empty)")
    refused = page.inner_text("#news")
    page.fill("#token", token)
    page.click("#ask button")
    page.wait_for_selector("#quarantined tbody tr")
    told = {
        "refused": refused,
        "shown": page.inner_text("main"),
        "written": page.content(),
        "links": page.eval_on_selector_all("td a", "all => all.map(it => it.href)"),
        "violations": page.evaluate("violations"),
        "broken": page.evaluate("window.broken === 1"),
        "kept": page.evaluate("[Object.values(sessionStorage), localStorage.length]"),
        "called": called,
    }
    page.request.delete(
        f"{url}/api/v1/leases/{held}", headers={"Authorization": f"Bearer {token}"}
    )
    page.wait_for_selector("#waiting .none:not([hidden])")
    page.click("#forget")
    told["forgotten"] = page.evaluate("sessionStorage.length"), page.inner_text("main")
    try:
        page.evaluate("document.body.innerHTML = '<p>broken in</p>'")
    except Error as error:
        told["markup"] = str(error)
    print(json.dumps(told))
    browser.close()
"""
"""Looks at the live page with a token, then without it."""
OF_THE_REAL_ONE = re.compile(r' (integrity|crossorigin)="[^"]*"')
"""What would keep the stand-in from the page."""
HOSTILE = "<img src=x onerror='window.broken=1'>"
JOB = "https://ci.example.com/jobs/7"


async def docs() -> httpx.Response:
    settings = fixed_settings({"database_url": "sqlite:///never-opened.sqlite3"})
    app = httpx.ASGITransport(create_app(settings))
    async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as client:
        return await client.get("/docs")


def browse(program: str, *given: object) -> Any:
    """What a program prints that is given a browser, and this besides."""
    installed = PYTHON.parents[1].glob("lib/*/site-packages/playwright")
    needs_set_up(f"Playwright in {NEWEST}", is_there=any(installed))
    ended = subprocess.run(
        [str(PYTHON), "-c", program],
        check=False,
        input=json.dumps([CHROMIUM, *given]),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_docs_runs_its_own_scripts_under_its_policy_and_no_others() -> None:
    page = asyncio.run(docs())
    text = OF_THE_REAL_ONE.sub("", page.text)
    told = browse(BROWSE, text, dict(page.headers), LISTEN)
    assert told == ["drawn", ["script-src-elem inline"]]


def fill(farm: httpx.Client) -> str:
    """With texts that would be markup. Returns a lease that is held."""
    for login, env in ((HOSTILE, "stage"), ("ill", "prod")):
        user = {"login": login, "password": "a secret", "env": env, "domain": "canary"}
        added = farm.post("/users", json=user).raise_for_status()
    reason = {"reason": HOSTILE, "author": HOSTILE}
    farm.post(f"/users/{added.json()['id']}/quarantine", json=reason)
    wants = [{"env": "stage", "domain": "canary"}]
    leases = [str(uuid.uuid4()) for _ in range(2)]
    for lease, job_url in zip(leases, ("javascript:alert(1)", JOB), strict=True):
        holder = {"test_id": HOSTILE, "worker_id": HOSTILE, "job_url": job_url}
        body = {"wants": wants, "holder": holder}
        farm.put(f"/leases/{lease}", json=body).raise_for_status()
    return leases[0]


def test_the_board_shows_who_holds_and_waits_and_makes_no_text_markup(
    tmp_path: Path,
) -> None:
    """And keeps the token in its tab, as long as that is wanted."""
    database_url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    patient = {"BOTFARM_BOOTSTRAP_TOKEN": TOKEN, "BOTFARM_POLL_GRACE": "300"}
    patient |= {"BOTFARM_CLAIM_WINDOW": "300", "BOTFARM_LOCK_DELAY": "300"}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with ServerProcess(database_url, patient) as server:
        url = server.wait_until_ready().url
        with httpx.Client(base_url=f"{url}/api/v1", headers=headers) as farm:
            held = fill(farm)
        told = browse(LOOK, url, TOKEN, held, LISTEN)
    assert "token" in told["refused"]
    assert told["shown"].count(HOSTILE) == 7
    assert "stage/canary" in told["shown"]
    assert "a secret" not in told["written"]
    assert told["links"] == [JOB]
    assert (told["violations"], told["broken"]) == ([], False)
    assert told["kept"] == [[TOKEN], 0]
    assert {urlsplit(it).netloc for it in told["called"]} == {urlsplit(url).netloc}
    assert not [it for it in told["called"] if TOKEN in it]
    length, left = told["forgotten"]
    assert (length, HOSTILE in left) == (0, False)
    assert "TrustedHTML" in told["markup"]
