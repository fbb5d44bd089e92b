"""Refuses what is too large before any of it is kept: an ASGI layer around the whole server.

Gradio bounds single uploaded files only; a thousand of them in one request, or a JSON message of any size, it would take.
"""

from .limits import LIMITS

WITH_FILES = ("/upload", "/component_server")


class _TooLarge(Exception):
    pass


class Guard:
    """Answers 413, in one sentence, to any request whose body is larger than LIMITS allow."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = LIMITS.uploads if scope["path"].rstrip("/").endswith(WITH_FILES) else LIMITS.message
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared) > most:
            return await _refuse(send, most)
        seen, answered = 0, False

        async def counted():
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:  # a chunked body declares no length
                raise _TooLarge
            return message

        async def noted(message):
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not answered:
                await _refuse(send, most)


async def _refuse(send, most: int) -> None:
    text = f"This is too large: at most {most // 2**20} MB are taken at once.".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text})
