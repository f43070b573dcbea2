"""Pages under their Content-Security-Policy, in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess

import httpx
import pytest
from support.beside import NEWEST, ROOT
from support.provided import needs_set_up

from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings

PYTHON = ROOT / NEWEST / "bin" / "python"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
LIMIT = 120.0
"""Seconds after which it hangs; three would do on a machine of its own."""

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
LISTEN = '''
window.violations = []
document.addEventListener("securitypolicyviolation", event => {
    violations.push(event.effectiveDirective + " " + event.blockedURI)
})
'''
chromium, body, headers = json.load(sys.stdin)

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
    page.add_init_script(LISTEN)
    page.route("**", answer)
    page.goto("http://farm/docs")
    page.wait_for_function("document.title === '200'")
    told = page.inner_text("body").strip(), page.evaluate("violations")
    print(json.dumps(told))
    browser.close()
"""
"""Opens the page of its input, with something small in the place of Swagger UI."""


async def docs() -> httpx.Response:
    settings = fixed_settings({"database_url": "sqlite:///never-opened.sqlite3"})
    app = httpx.ASGITransport(create_app(settings))
    async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as client:
        return await client.get("/docs")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_docs_runs_its_own_scripts_under_its_policy_and_no_others() -> None:
    installed = PYTHON.parents[1].glob("lib/*/site-packages/playwright")
    needs_set_up(f"Playwright in {NEWEST}", is_there=any(installed))
    page = asyncio.run(docs())
    ended = subprocess.run(
        [str(PYTHON), "-c", BROWSE],
        check=False,
        input=json.dumps([CHROMIUM, page.text, dict(page.headers)]),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == ["drawn", ["script-src-elem inline"]]
