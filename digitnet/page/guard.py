"""Who may ask what, how often and how much: an ASGI layer around the whole server.

Gradio serves routes this page does not use, some of which fetch addresses, write files or answer without a password, and
bounds single uploaded files only. What is refused here is answered by one sentence, before any of it is kept.
"""

import asyncio
import inspect
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

import orjson
from starlette.requests import ClientDisconnect

from .limits import LIMITS
from .rates import Buckets, Full, Gate

API = r"/gradio_api"


@dataclass(frozen=True)
class Route:
    """One way in. kind: what the request is taken for; open: whether it answers before a visitor has logged in."""

    methods: str
    path: re.Pattern
    kind: str
    open: bool = False


# All there is. Gap: Gradio also serves /proxy=, /process_recording (runs ffmpeg), /deep_link (writes files), /stream, /token,
# /dev/reload, /vibe-…, /monitoring, /run-history and /run, which leaves the queue out; some without asking for a password.
ROUTES = [
    Route(methods, re.compile(path), kind, open_)
    for methods, path, kind, open_ in (
        ("GET HEAD", r"/", "visit", True),
        ("GET HEAD", r"/(static|assets|svelte)/.+", "asset", True),
        ("GET HEAD", r"/(theme\.css|favicon\.ico|robots\.txt|manifest\.json)", "asset", True),
        ("GET", r"/pwa_icon(/\d+)?", "asset", True),
        ("GET", r"/config/?", "visit", True),
        ("GET", rf"{API}/(info|openapi\.json)/?", "visit", False),
        ("GET", rf"{API}/(user|login_check|app_id)/?", "visit", True),
        ("GET", rf"{API}/startup-events", "visit", True),
        ("GET", rf"{API}/theme\.css", "asset", True),
        ("GET", rf"{API}/custom_component/.+", "asset", True),
        ("GET", rf"{API}/queue/status", "visit", False),
        ("POST", r"/login/?", "login", True),
        ("GET", r"/logout", "visit", True),
        ("GET HEAD", rf"{API}/file=.+", "file", False),
        ("POST", rf"{API}/upload", "upload", False),
        ("GET", rf"{API}/upload_progress", "progress", False),
        ("POST", rf"{API}/component_server/?", "server", False),
        ("POST", rf"{API}/queue/join", "join", False),
        ("POST", rf"{API}/call/(?!v2/)(?P<name>[^/]+)/?", "call", False),
        ("POST", rf"{API}/call/v2/(?P<name>[^/]+)/?", "call by name", False),
        ("GET", rf"{API}/queue/data", "stream", False),
        ("GET", rf"{API}/call/(v2/)?[^/]+/(?P<event>[^/]+)", "stream", False),
        ("GET", rf"{API}/heartbeat/[^/]+", "heartbeat", False),
        ("POST", rf"{API}/cancel", "cancel", False),
        ("POST", rf"{API}/reset/?", "reset", False),
        ("GET POST DELETE", rf"{API}/mcp(/.*)?", "mcp", False),  # there with --mcp only
    )
]
WORK = ("upload", "server", "join", "call", "call by name", "mcp")  # what costs more than an answer from memory
MESSAGES = ("server", "join", "call", "call by name", "cancel", "reset")  # whose bodies are JSON
FREE = ("asset", "heartbeat")  # as many as a browser wants
STREAMS = ("stream", "progress", "heartbeat")


class Refused(Exception):
    """A request that goes no further: the status, and one sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str, *, after: float = 0.0):
        super().__init__(sentence)
        self.status, self.sentence, self.after = status, sentence, after


TOO_LARGE = "This is too large: at most {} MB are taken at once."
OFTEN = "That is more than one visitor may ask for at once. Wait a moment and try again."
BUSY = "Too many people are drawing right now. Wait a moment and try again."
UNCLEAR = "This message cannot be understood; see the API page for what is expected."
UPLOADED = "/gradio_api/file="
NOT_FETCHED = "Upload the picture and send the path that comes back; addresses are not fetched."


class Guard:
    """See the module. proxied: whether X-Forwarded-For and -Host were written by a proxy of the owner's; shelf: gaps.Shelf."""

    def __init__(self, app, *, proxied: bool = False, shelf=None, clock: Callable[[], float] = time.monotonic):
        self.app, self.proxied, self.shelf = app, proxied, shelf

        def buckets(rate, burst):
            return Buckets(rate, burst, keys=LIMITS.remembered, clock=clock)

        self.sessions = buckets(LIMITS.session_rate, LIMITS.session_burst)
        self.addresses = buckets(LIMITS.address_rate, LIMITS.address_burst)
        self.visits = buckets(LIMITS.visit_rate, LIMITS.visit_burst)
        self.logins = buckets(LIMITS.login_rate, LIMITS.login_burst)
        self.gate = Gate(LIMITS.at_once, LIMITS.waiting)
        self.requests = 0
        self.streams: Counter[str] = Counter()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})  # nothing here speaks it
        began = False

        async def noted(message):
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                message.setdefault("headers", []).append((b"x-content-type-options", b"nosniff"))
            await send(message)

        route, found = _route(scope)
        try:
            await self._pass(scope, receive, noted, route, found)
        except Refused as refused:
            if not began:
                await _refuse(send, refused, text=route is not None and route.kind == "upload")
        except ClientDisconnect:
            pass  # nobody is left to answer

    async def _pass(self, scope, receive, send, route, found) -> None:
        if route is None:
            raise Refused(404, "There is nothing here.")
        headers = _headers(scope)
        _no_strangers_page(route, headers, proxied=self.proxied)
        page = _Page(scope.get("app"))
        if not route.open and not page.knows(headers):
            raise Refused(401, "Log in first.")
        if route.kind == "file":
            _only_files_here(scope["path"])
        address = self._address(scope, headers)
        self._not_too_often(route, address)
        if route.kind in STREAMS:
            # Gap: where nobody waits, Gradio begins an answer all the same and breaks it off with a traceback.
            _must(route.kind != "stream" or page.has_answers_for(scope, found), 404)
            return await self._stream(scope, receive, send, route, address)
        if route.kind in FREE:
            return await self.app(scope, receive, send)
        if self.requests >= LIMITS.requests:
            raise Refused(503, BUSY, after=1)
        self.requests += 1
        try:
            async with _deadline(LIMITS.sending + LIMITS.answering, 503, "This took too long and was given up."):
                await self._answer(scope, receive, send, route, found, headers, page, address)
        finally:
            self.requests -= 1

    async def _answer(self, scope, receive, send, route, found, headers, page, address) -> None:
        with_files = headers.get("content-type", "").lower().startswith("multipart/form-data")
        if route.kind == "upload" and page.queue_is_full():
            raise Refused(503, BUSY, after=1)
        if route.kind == "upload" or (route.kind == "server" and with_files):
            most = LIMITS.uploads if route.kind == "upload" else LIMITS.blobs + 65_536
            size = _declared(headers, most)
            if self.shelf and not self.shelf.has_room(size or most):
                raise Refused(503, "There is no room for more pictures right now. Try again in a few minutes.", after=60)
            async with _deadline(LIMITS.sending, 408, "The picture did not arrive in time. Send it again."):
                counted = _Counted(receive, most, headers.get("content-type", ""))
                await self._with_files(scope, counted, send, route)
            if self.shelf:
                self.shelf.taken += counted.seen
            return
        if route.kind in (*MESSAGES, "login", "mcp"):
            _declared(headers, LIMITS.message)
            async with _deadline(LIMITS.sending, 408, "The message did not arrive in time. Send it again."):
                body = await _whole(receive, LIMITS.message)
            if route.kind in MESSAGES:
                body, session = page.checked(body, route.kind, found)
                if session is not None:
                    self._session_not_too_often(route, session)
            receive = _replayed(body, receive)
            scope = {**scope, "headers": _with_length(scope["headers"], len(body))}
        if route.kind in WORK:
            _wait(self.addresses.take(address))
        if route.kind == "server":
            try:
                async with self.gate:
                    return await self.app(scope, receive, send)
            except Full:
                raise Refused(503, BUSY, after=1) from None
        if route.kind in ("join", "call", "call by name") and page.queue_is_full():
            # The page's own script shows the sentence of a 429 and hides that of a 503.
            raise Refused(429 if route.kind == "join" else 503, BUSY, after=1)
        await self.app(scope, receive, send)

    async def _with_files(self, scope, counted, send, route) -> None:
        """Gap: what is wrong with a multipart body is, in places, an exception of Gradio's: a 500 with a traceback."""
        try:
            if route.kind == "server":
                async with self.gate:
                    await self.app(scope, counted, send)
            else:
                await self.app(scope, counted, send)
        except Full:
            raise Refused(503, BUSY, after=1) from None
        except OSError as error:
            raise Refused(503, "This picture could not be kept. Try again later.", after=60) from error
        except (TypeError, ValueError, LookupError) as error:
            raise Refused(400, "This upload is not whole, or not as a browser sends it.") from error

    async def _stream(self, scope, receive, send, route, address) -> None:
        if self.streams.total() >= LIMITS.streams or self.streams[address] >= LIMITS.streams_address:
            raise Refused(503, BUSY, after=5)
        self.streams[address] += 1
        try:
            limit = LIMITS.heartbeat if route.kind == "heartbeat" else LIMITS.stream
            async with _deadline(limit, 503, "This took too long and was given up."):
                await self.app(scope, receive, send)
        finally:
            self.streams[address] -= 1
            if not self.streams[address]:
                del self.streams[address]

    def _not_too_often(self, route, address) -> None:
        if route.kind == "upload":
            _wait(self.addresses.take(address))
        elif route.kind == "visit":
            _wait(self.visits.take(address))
        elif route.kind == "login":
            _wait(self.logins.take(address))

    def _session_not_too_often(self, route, session) -> None:
        if route.kind in WORK:
            _wait(self.sessions.take(session))

    def _address(self, scope, headers) -> str:
        """Whom the request comes from. Of X-Forwarded-For, only the last entry was written by the owner's proxy."""
        if self.proxied and headers.get("x-forwarded-for"):
            return headers["x-forwarded-for"].rpartition(",")[2].strip()[:64]
        return (scope.get("client") or ("",))[0]


class _Page:
    """What the guard asks Gradio's server: its routes' names, its queue, and whether a visitor has logged in."""

    def __init__(self, app):
        self.app = app if hasattr(app, "get_blocks") else None

    @property
    def blocks(self):
        return self.app.get_blocks()

    def knows(self, headers) -> bool:
        """Gap: Gradio answers /cancel, /heartbeat and others without a password, and reads bodies before it asks for one."""
        if self.app is None or self.app.auth is None:
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        names = (f"access-token-{self.app.cookie_id}", f"access-token-unsecure-{self.app.cookie_id}")
        return any(name in cookies and cookies[name].value in self.app.tokens for name in names)

    def queue_is_full(self) -> bool:
        if self.app is None:
            return False
        return len(self.blocks._queue) >= LIMITS.waiting

    def has_answers_for(self, scope, found: dict) -> bool:
        """Whether a session, or one call, has answers to come."""
        if self.app is None:
            return True
        queue = self.blocks._queue
        event = found.get("event")
        if event is None:
            session = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[-1]
            return session in queue.pending_messages_per_session
        waiting = queue.pending_event_ids_session
        return event in queue.event_ids_to_events or event in waiting or any(event in ids for ids in waiting.values())

    def checked(self, body: bytes, kind: str, found: dict) -> tuple[bytes, str | None]:
        """The message as it may go on, and the session it names. Refused where Gradio would answer it with a 500."""
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Refused(400, "This is not a JSON message.") from None
        _must(isinstance(message, dict))
        session = message.get("session_hash")
        _must(session is None or (isinstance(session, str) and 0 < len(session) <= LIMITS.name))
        if kind == "server":
            _must(session is not None and "data" in message)
            self._must_serve(message.get("component_id"), message.get("fn_name"))
            return body, session  # these functions check what they are given, and know no files
        if kind in ("cancel", "reset"):
            names = [message.get("event_id"), *([session] if kind == "cancel" else [])]
            _must(all(isinstance(name, str) and len(name) <= LIMITS.name for name in names))
            _must(kind == "reset" or _is_int(message.get("fn_index")))
            return body, session
        if kind == "call by name":
            self._must_fit(found["name"], message)
        else:
            _must(isinstance(message.get("data"), list) and len(message["data"]) <= LIMITS.pictures)
            _must(not message.get("batched"))
        if kind == "join":
            _must(session is not None)
            fns = self.blocks.fns if self.app else {}
            _must(_is_int(message.get("fn_index")) and message["fn_index"] in fns, 404)
            _must(fns[message["fn_index"]].fn is not None, 404)
            _must(message.get("trigger_id") is None or _is_int(message["trigger_id"]))
            waiting = self.blocks._queue.pending_event_ids_session.get(session, ())
            # Gap: a session may ask without end and never fetch an answer; each is kept.
            if len(waiting) >= LIMITS.uncollected:
                raise Refused(429, OFTEN, after=1)
        elif kind == "call" and self.app:
            _must(self._named(found["name"]) is not None, 404)
        # Written anew: what was checked is what Gradio reads, whatever it makes of a name given twice.
        return orjson.dumps(_without_addresses(message)), session

    def _named(self, name: str):
        return next((fn for fn in self.blocks.fns.values() if fn.api_name == name and fn.api_visibility == "public"), None)

    def _must_fit(self, name: str, message: dict) -> None:
        fn = self._named(name) if self.app else None
        _must(fn is not None, 404)
        _must(set(message) - {"session_hash", "oauth_token"} == set(inspect.signature(fn.fn).parameters))

    def _must_serve(self, component, name) -> None:
        _must(_is_int(component) and isinstance(name, str))
        if self.app is None:
            return
        _must(component in self.blocks.blocks, 404)
        function = getattr(self.blocks.blocks[component], name, None)
        # accept_blobs takes files, never a message.
        _must(getattr(function, "_is_server_fn", False) and name != "accept_blobs", 404)


def _route(scope) -> tuple[Route | None, dict]:
    for route in ROUTES:
        match = route.path.fullmatch(scope["path"])
        if match and scope["method"] in route.methods.split():
            return route, match.groupdict()
    return None, {}


def _headers(scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _no_strangers_page(route: Route, headers: dict, *, proxied: bool) -> None:
    """Gap: Gradio's strict CORS is strict on localhost only; elsewhere any website may ask with a visitor's cookies.

    Browsers say where a request comes from; programs, which say nothing, are let through.
    """
    if route.kind == "asset":
        return
    site = headers.get("sec-fetch-site")
    if site is not None:
        stranger = site not in ("same-origin", "none") and headers.get("sec-fetch-mode") != "navigate"
    else:  # browsers leave it out where the page came by plain http from another machine
        origin = headers.get("origin")
        host = (proxied and headers.get("x-forwarded-host")) or headers.get("host", "")
        stranger = origin is not None and origin.partition("://")[2] != host
    if stranger or (route.kind == "login" and site not in (None, "same-origin", "none")):
        raise Refused(403, "Pages of other sites may not use this one.")


def _only_files_here(path: str) -> None:
    """Gap: /file=http://… has the server fetch that address and pass it on."""
    if "://" in path or ":/" in path or "\0" in path:
        raise Refused(403, NOT_FETCHED)


def _without_addresses(value, depth: int = 0):
    """The message with no file that lies elsewhere. Gap: Gradio fetches a file whose path is an address before we see it."""
    _must(depth <= LIMITS.depth)
    if isinstance(value, list):
        return [_without_addresses(one, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    if "path" in value or "url" in value:
        _must(isinstance(value.get("meta", {}), dict))
        path, url = value.get("path"), value.get("url")
        if isinstance(path, str) and path.startswith(("http://", "https://")) and UPLOADED in path:
            # What was uploaded here, by its address, as MCP clients name it: looked for here, whatever the host.
            path = path.partition(UPLOADED)[2]
            value = {**value, "path": path}
        if isinstance(path, str) and (":/" in path or "\0" in path):
            raise Refused(400, NOT_FETCHED)
        if isinstance(url, str) and not url.startswith("data:"):
            value = {**value, "url": None}
    return {name: _without_addresses(one, depth + 1) for name, one in value.items()}


def _must(holds, status: int = 400) -> None:
    if not holds:
        raise Refused(status, UNCLEAR if status == 400 else "There is nothing here.")


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _wait(seconds: float) -> None:
    if seconds > 0:
        raise Refused(429, OFTEN, after=seconds)


def _declared(headers: dict, most: int) -> int:
    """The length a request declares, 0 where it declares none. Gap: Gradio bounds no request, only each of a thousand files."""
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
        raise Refused(413, TOO_LARGE.format(most // 2**20))
    return int(length)


class _Counted:
    """A receive() that stops where more comes than was allowed, or more files."""

    def __init__(self, receive, most: int, content_type: str):
        self.receive, self.most, self.seen, self.parts = receive, most, 0, 0
        self.boundary = b"--" + content_type.rpartition("boundary=")[2].partition(";")[0].strip(' "').encode("latin-1")
        self.tail = b""

    async def __call__(self):
        message = await self.receive()
        body = message.get("body", b"")
        self.seen += len(body)
        if self.seen > self.most:  # a chunked body declares no length
            raise Refused(413, TOO_LARGE.format(self.most // 2**20))
        self.parts += (self.tail + body).count(self.boundary)
        self.tail = (self.tail + body)[1 - len(self.boundary) :]
        if self.parts > LIMITS.files + 8:  # a few fields, and the end
            raise Refused(413, f"These are too many files: at most {LIMITS.files} are taken at once.")
        return message


async def _whole(receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Refused(413, TOO_LARGE.format(most // 2**20))
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive):
    sent = False

    async def replay():
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _with_length(headers, length: int) -> list:
    kept = [(name, value) for name, value in headers if name not in (b"content-length", b"transfer-encoding")]
    return [*kept, (b"content-length", str(length).encode())]


class _deadline:
    """`async with _deadline(seconds, status, sentence):` gives up on what is inside after that time."""

    def __init__(self, seconds: float, status: int, sentence: str):
        self.timeout, self.status, self.sentence = asyncio.timeout(seconds), status, sentence

    async def __aenter__(self):
        await self.timeout.__aenter__()

    async def __aexit__(self, *error):
        try:
            return await self.timeout.__aexit__(*error)
        except TimeoutError:
            raise Refused(self.status, self.sentence, after=1) from None


async def _refuse(send, refused: Refused, *, text: bool) -> None:
    """As JSON that Gradio's clients read the sentence from; as text where a browser's upload shows what it gets."""
    if text:
        body, kind = refused.sentence.encode(), b"text/plain; charset=utf-8"
    else:
        body, kind = orjson.dumps({"detail": refused.sentence, "error": refused.sentence}), b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if text or refused.status in (408, 413):  # what is still on its way is not waited for
        headers.append((b"connection", b"close"))
    if refused.after:
        headers.append((b"retry-after", str(max(1, round(refused.after))).encode()))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
