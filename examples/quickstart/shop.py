"""A small shop with accounts, standing in for the system that your tests drive.

It behaves as real systems do: an account is signed in once, so that a second login ends
the first session, and what a person leaves in a cart is still there tomorrow.
"""

import asyncio
import html
import secrets
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import parse_qsl

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

LATENCY = 0.03
"""Seconds that every page takes: no real application is instant."""


@dataclass
class Account:
    login: str
    password: str
    role: str = "customer"
    session: str | None = None
    name: str = "New customer"
    cart: dict[str, int] = field(default_factory=dict)
    todos: list[str] = field(default_factory=list)
    inbox: list[str] = field(default_factory=list)


ACCOUNTS = {
    account.login: account
    for account in (
        Account("ada@shop.example", "analytical-engine"),
        Account("grace@shop.example", "nanoseconds"),
        Account("katherine@shop.example", "orbital-mechanics"),
        Account("margaret@shop.example", "apollo-guidance", role="admin"),
    )
}
SESSIONS: dict[str, Account] = {}
NOTICES: list[str] = []

app = FastAPI(default_response_class=HTMLResponse)


@app.middleware("http")
async def take_a_moment(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    await asyncio.sleep(LATENCY)
    return await answer(request)


async def submitted_form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode()))


def signed_in_account(request: Request) -> Account:
    session = request.cookies.get("session", "")
    account = SESSIONS.get(session)
    if account is None:
        raise HTTPException(401, "Please sign in.")
    if account.session != session:
        raise HTTPException(401, "You were signed in elsewhere.")
    return account


Form = Annotated[dict[str, str], Depends(submitted_form)]
Customer = Annotated[Account, Depends(signed_in_account)]


def page(*lines: str) -> HTMLResponse:
    body = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return HTMLResponse(f"<!doctype html><title>The shop</title>\n{body}")


def see(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


@app.get("/login")
async def login_page() -> str:
    return (
        "<!doctype html><title>Sign in</title>"
        "<form method=post><input name=login><input name=password type=password>"
        "<button>Sign in</button></form>"
    )


@app.post("/login")
async def log_in(form: Form) -> Response:
    account = ACCOUNTS.get(form.get("login", ""))
    password = form.get("password", "")
    if account is None or not secrets.compare_digest(account.password, password):
        raise HTTPException(401, "Wrong login or password.")
    account.session = secrets.token_urlsafe()  # whoever was signed in is out now
    SESSIONS[account.session] = account
    home = see("/")
    home.set_cookie("session", account.session, httponly=True, samesite="lax")
    return home


@app.post("/logout")
async def log_out(customer: Customer) -> Response:
    SESSIONS.pop(customer.session or "")
    customer.session = None
    return see("/login")


@app.get("/")
async def home(customer: Customer) -> Response:
    return page(f"Welcome, {customer.login}", *NOTICES)


@app.get("/profile")
async def profile(customer: Customer) -> Response:
    return page(f"Name: {customer.name}", f"Login: {customer.login}")


@app.post("/profile")
async def rename(customer: Customer, form: Form) -> Response:
    if not form.get("name", "").strip():
        raise HTTPException(400, "A name must not be empty.")
    customer.name = form["name"].strip()
    return see("/profile")


@app.get("/cart")
async def cart(customer: Customer) -> Response:
    items = [f"{count} x {item}" for item, count in customer.cart.items()]
    return page(*(items or ["Your cart is empty."]))


@app.post("/cart/add")
async def add_to_cart(customer: Customer, form: Form) -> Response:
    item, count = form["item"], int(form.get("count", "1"))
    customer.cart[item] = customer.cart.get(item, 0) + count
    return see("/cart")


@app.post("/cart/remove")
async def remove_from_cart(customer: Customer, form: Form) -> Response:
    customer.cart.pop(form["item"], None)
    return see("/cart")


@app.post("/cart/empty")
async def empty_cart(customer: Customer) -> Response:
    customer.cart.clear()
    return see("/cart")


@app.post("/cart/buy")
async def buy(customer: Customer) -> Response:
    if not customer.cart:
        raise HTTPException(400, "There is nothing to buy.")
    bought = sum(customer.cart.values())
    customer.cart.clear()
    return page(f"Thank you, {customer.name}: {bought} items are on their way.")


@app.get("/todos")
async def todos(customer: Customer) -> Response:
    return page(*(customer.todos or ["Nothing to do."]))


@app.post("/todos/add")
async def add_todo(customer: Customer, form: Form) -> Response:
    customer.todos.append(form["text"])
    return see("/todos")


@app.post("/todos/done")
async def finish_todo(customer: Customer, form: Form) -> Response:
    if form["text"] not in customer.todos:
        raise HTTPException(404, "There is no such thing to do.")
    customer.todos.remove(form["text"])
    return see("/todos")


@app.post("/todos/clear")
async def clear_todos(customer: Customer) -> Response:
    customer.todos.clear()
    return see("/todos")


@app.get("/inbox")
async def inbox(customer: Customer) -> Response:
    return page(*(customer.inbox or ["No messages."]))


@app.post("/inbox/clear")
async def clear_inbox(customer: Customer) -> Response:
    customer.inbox.clear()
    return see("/inbox")


@app.post("/messages")
async def send_message(customer: Customer, form: Form) -> Response:
    recipient = ACCOUNTS.get(form["to"])
    if recipient is None:
        raise HTTPException(404, "Nobody has that login.")
    recipient.inbox.append(f"{customer.login}: {form['text']}")
    return page("Sent.")


@app.post("/notices")
async def publish_notice(customer: Customer, form: Form) -> Response:
    if customer.role != "admin":
        raise HTTPException(403, "Only an admin may do that.")
    NOTICES[:] = [form["text"]] if form.get("text") else []
    return see("/")


def main() -> None:
    """Serve on a free port, tell its URL, and end when whoever started it is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))

    def stop_with_the_starter() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop_with_the_starter, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
