"""MLflow's model server with limits: `uvicorn regente.inference.serving_app:app`.

The server as it is accepts a body of any size and any Host header. The second lets a page of another site reach it
through the user's browser, by a name of its own that leads to 127.0.0.1.
"""

import atexit
import os
import shutil
from typing import Any

from mlflow.pyfunc.scoring_server.app import app
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

HOSTS, FOLDER = (
    "REGENTE_SERVE_HOSTS",
    "REGENTE_SERVE_FOLDER",
)  # allowed Host headers; what is deleted at the end
MOST = 32 * 2**20  # bytes of a request


class LimitBody:
    """ASGI middleware: reads the body of a request, and answers 413 where it is too large."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body.append(message.get("body", b""))
            size, more = size + len(body[-1]), message.get("more_body", False)
            if size > MOST:
                what = f"the request has more than {MOST // 2**20} MiB; send fewer samples in each"
                await JSONResponse({"message": what}, 413)(scope, receive, send)
                return
        whole: list[dict[str, Any]] = [{"type": "http.request", "body": b"".join(body), "more_body": False}]

        async def again() -> Any:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)


async def too_deep(request: Request, error: Exception) -> JSONResponse:
    """The answer to JSON that is nested deeper than Python can read."""
    return JSONResponse({"message": "the request is nested too deeply"}, 400)


app.add_exception_handler(RecursionError, too_deep)
app.add_middleware(LimitBody)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=os.environ[HOSTS].split(","))
atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)
