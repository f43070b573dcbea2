"""What people look at in a browser, which sends no token by itself."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from botfarm_server.api.auth import admit_to_page, needs

SWAGGER = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"
FAVICON = "https://fastapi.tiangolo.com"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)

router = APIRouter(include_in_schema=False, dependencies=[Depends(admit_to_page)])


@router.get("/openapi.json")
@needs("read")
async def openapi(request: Request) -> Any:
    return JSONResponse(request.app.openapi())


@router.get("/docs")
@needs("read")
async def docs(request: Request) -> Any:
    page = get_swagger_ui_html(
        openapi_url=f"{request.scope.get('root_path', '').rstrip('/')}/openapi.json",
        title=request.app.title,
        swagger_js_url=f"{SWAGGER}swagger-ui-bundle.js",
        swagger_css_url=f"{SWAGGER}swagger-ui.css",
    )
    page.headers.update(_headers(page))
    return page


def _headers(page: HTMLResponse) -> dict[str, str]:
    """What lets it run its own scripts alone, and stand in no other page's frame."""
    scripts = INLINE_SCRIPT.findall(bytes(page.body))
    own = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in scripts
    )
    policy = {
        "default-src": "'none'",
        "script-src": f"{own} {SWAGGER}",
        "style-src": f"'unsafe-inline' {SWAGGER}",
        "img-src": f"'self' data: {FAVICON}",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(map(" ".join, policy.items())),
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
    }
