"""What stands before Serve's HTTP server, on every node: bounds what is sent, and loses no request to a dead worker.

A request is held, whole, until it is answered; when the worker that had it dies, another one gets it. To read a picture
twice does no harm. Plain ASGI; knows no pictures and no network.
"""

import asyncio
import json

from starlette.middleware import Middleware

LARGEST = 12 * 2**20  # bytes of one request, as on the page
TRIES = 4
PAUSE = 0.2  # seconds before the second try, twice that before the third
SENTENCES = {
    413: f"This is too large: at most {LARGEST // 2**20} MB are taken at once.",
    500: "This picture could not be read for a fault on this side. Try again later.",
    503: "Too many are asking at once. Try again in a moment.",
}


def layers() -> list[Middleware]:
    """What Serve's HTTP server is wrapped in; it finds this by name (cluster.FRONT)."""
    return [Middleware(Front)]


class Front:
    """Answers 413 to what is too large; asks again when a worker died; says 500 and 503 in one sentence."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body = await _whole(scope, receive)
        if body is None:
            return await _say(send, 413)
        for attempt in range(TRIES):
            answer = await self._ask(scope, body, receive)
            status = answer[0]["status"] if answer else 500
            if status != 500:
                break
            await asyncio.sleep(PAUSE * 2**attempt)
        if status in (500, 503):
            return await _say(send, status)
        for message in answer:
            await send(message)

    async def _ask(self, scope, body, receive) -> list[dict]:
        """One try: the messages of the answer, none where there is none."""
        given, answer = False, []

        async def again():
            nonlocal given
            if given:
                return await receive()  # nothing but the end of the connection is left to come
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def keep(message):
            answer.append(message)

        await self.app(dict(scope), again, keep)
        return answer


async def _whole(scope, receive) -> bytes | None:
    """The body of a request; None where it is, or says it is, larger than LARGEST."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not declared.isdigit() or int(declared) > LARGEST:
        return None
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST:  # a chunked body declares no length
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


async def _say(send, status: int) -> None:
    text = json.dumps({"error": SENTENCES[status]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
