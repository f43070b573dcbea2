"""What Prometheus reads, at the path where it looks for it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from botfarm_server.api.auth import By, needs
from botfarm_server.api.errors import documented
from botfarm_server.api.example_answers import METRICS
from botfarm_server.api.routes import MetricsRoute
from botfarm_server.api.state import State
from botfarm_server.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"], route_class=MetricsRoute)


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=PlainTextResponse,
    response_model=None,
    responses=documented()
    | {
        200: {
            "description": "In the text format of Prometheus.",
            "content": {"text/plain": {"example": METRICS}},
        }
    },
)
@needs("read")
async def read(state: State, by: By) -> Response:
    """What there is, up to a second old, and what this process has counted.

    To a token of a project only the first, and of its project alone. While the database
    does not answer, `botfarm_database_up` is 0 and nothing is told of what there is.
    """
    told = state.metrics.exposition(await state.census.take(), by.project_id)
    return Response(told, media_type=CONTENT_TYPE)
