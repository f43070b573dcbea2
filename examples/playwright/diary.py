"""A diary with accounts, standing in for the system that your tests drive.

Signing in takes its time, as where a password is checked, a risk weighed and a front
end loaded. Nothing but the standard library is needed.
"""

import html
import secrets
import sys
import threading
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

SIGNING_IN = 1.0
"""Seconds that a login takes."""

PASSWORDS = {
    "anne@diary.example": "kitty-1942",
    "samuel@diary.example": "up-betimes",
}
SESSIONS: dict[str, str] = {}
"""Who is signed in, by the session's cookie. They end with the program."""
ENTRIES: dict[str, list[str]] = {login: [] for login in PASSWORDS}

LOGIN_PAGE = """\
<form method="post">
<label>Login <input name="login"></label>
<label>Password <input name="password" type="password"></label>
<button>Sign in</button>
</form>"""

DIARY_PAGE = """\
<h1>Dear diary of {login}</h1>
<ul>{entries}</ul>
<form method="post" action="/entries">
<label>Entry <input name="entry"></label><button>Write</button>
</form>
<form method="post" action="/clear"><button>Tear all out</button></form>
<form method="post" action="/sign-out"><button>Sign out</button></form>"""


class Diary(BaseHTTPRequestHandler):
    logins = 0

    def do_GET(self) -> None:
        login = SESSIONS.get(self.session)
        if self.path == "/logins":
            self.show(str(Diary.logins))
        elif self.path == "/login":
            self.show(LOGIN_PAGE)
        elif login is None:
            self.see("/login")
        else:
            entries = "".join(f"<li>{html.escape(it)}</li>" for it in ENTRIES[login])
            self.show(DIARY_PAGE.format(login=login, entries=entries))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        form = dict(parse_qsl(self.rfile.read(length).decode()))
        if self.path == "/login":
            self.sign_in(form.get("login", ""), form.get("password", ""))
            return
        login = SESSIONS.get(self.session)
        if login is None:
            self.see("/login")
            return
        if self.path == "/entries":
            ENTRIES[login] += filter(None, [form.get("entry", "").strip()])
        elif self.path == "/clear":
            ENTRIES[login].clear()
        elif self.path == "/sign-out":
            del SESSIONS[self.session]
        self.see("/")

    def sign_in(self, login: str, password: str) -> None:
        time.sleep(SIGNING_IN)
        if PASSWORDS.get(login) != password:
            self.see("/login")
            return
        Diary.logins += 1
        session = secrets.token_urlsafe()
        SESSIONS[session] = login
        self.see("/", cookie=f"session={session}; HttpOnly; SameSite=Lax; Path=/")

    @property
    def session(self) -> str:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        return cookie.value if cookie else ""

    def show(self, body: str) -> None:
        page = f"<!doctype html><title>Diary</title>{body}".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def see(self, path: str, *, cookie: str | None = None) -> None:
        self.send_response(303)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Print the address, and serve until standard input closes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Diary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
