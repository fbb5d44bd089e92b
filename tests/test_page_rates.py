"""How often and how many: token buckets by an injected clock, the gate, and what the guard makes of them."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from digitnet.page import guard
from digitnet.page.guard import Guard
from digitnet.page.limits import LIMITS
from digitnet.page.rates import Buckets, Full, Gate


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run(coroutine):
    """In a thread of its own: where browser tests ran before, Playwright's loop still runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_a_bucket_gives_its_burst_and_then_its_rate():
    clock = Clock()
    buckets = Buckets(2, 5, keys=10, clock=clock)
    assert [buckets.take("a") for _ in range(5)] == [0] * 5
    assert buckets.take("a") == 0.5
    clock.now += 0.5
    assert buckets.take("a") == 0
    assert buckets.take("b") == 0, "one key's thirst is not another's"
    clock.now += 1000
    assert [buckets.take("a") for _ in range(6)].count(0) == 5, "it never holds more than the burst"


def test_a_clock_that_jumps_back_neither_gives_nor_locks_out():
    clock = Clock()
    buckets = Buckets(2, 1, keys=10, clock=clock)
    assert buckets.take("a") == 0
    clock.now -= 3600
    assert buckets.take("a") == 0.5
    clock.now += 0.5
    assert buckets.take("a") == 0


def test_who_was_not_seen_longest_is_forgotten():
    buckets = Buckets(1, 1, keys=100, clock=Clock())
    for number in range(1000):
        buckets.take(f"visitor {number}")
    assert len(buckets) == 100


def test_the_gate_lets_few_through_and_few_wait():
    async def scenario():
        gate, inside, most, refused, leave = Gate(2, 3), 0, 0, 0, asyncio.Event()

        async def visit():
            nonlocal inside, most, refused
            try:
                async with gate:
                    inside += 1
                    most = max(most, inside)
                    await leave.wait()
                    inside -= 1
            except Full:
                refused += 1

        visits = [asyncio.create_task(visit()) for _ in range(9)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        visits[3].cancel()  # one of those who wait goes away and makes room for another
        await asyncio.sleep(0)
        visits.append(asyncio.create_task(visit()))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(*visits, return_exceptions=True)
        async with gate:  # open again
            pass
        return most, refused

    assert run(scenario()) == (2, 4)


# --- in the guard ---------------------------------------------------------------------------------------------------------


class Server:
    """Something behind the guard that answers at once; asks it as visitors do."""

    def __init__(self, **settings):
        self.clock = Clock()
        self.guard = Guard(self.answer, clock=self.clock, **settings)
        self.answered = 0

    async def answer(self, scope, receive, send):
        await receive()
        self.answered += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def hold_until(self, leave: asyncio.Event) -> None:
        """From now on answers come when there is leave."""

        async def held(scope, receive, send):
            await leave.wait()
            await self.answer(scope, receive, send)

        self.guard.app = held

    async def ask(
        self, path="/gradio_api/queue/join", *, session="s", address="10.0.0.1", method="POST", headers=(), body=None
    ):
        """Returns status, headers and text."""
        message = {"data": [], "session_hash": session, "fn_index": 0, "component_id": 1, "fn_name": "read_sheet"}
        body = json.dumps(message).encode() if body is None else body
        sent = {}

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.setdefault("status", message.get("status"))
            sent.setdefault("headers", dict(message.get("headers", [])))
            sent["text"] = message.get("body", b"").decode()

        scope = {"type": "http", "method": method, "path": path, "client": (address, 1), "headers": [*headers]}
        await self.guard(scope, receive, send)
        return sent["status"], sent["headers"], sent["text"]


READ = "/gradio_api/component_server/"


def test_a_session_may_ask_as_often_as_a_page_does_and_no_oftener():
    async def scenario():
        server = Server()
        answers = [await server.ask(READ) for _ in range(int(LIMITS.session_burst) + 10)]
        refused = [answer for answer in answers if answer[0] != 200]
        assert len(refused) == 10 and {status for status, _, _ in refused} == {429}
        _, headers, text = refused[0]
        assert json.loads(text)["detail"] == guard.OFTEN and headers[b"retry-after"] == b"1"
        assert (await server.ask(READ, session="another"))[0] == 200
        for _ in range(300):  # ten seconds of drawing, at the rate at which a page asks at most
            server.clock.now += 1 / 33
            assert (await server.ask(READ))[0] == 200

    run(scenario())


def test_a_class_behind_one_router_may_draw_and_a_script_with_many_sessions_may_not():
    async def scenario():
        server = Server()
        for second in range(20):  # thirty people, four answers a second each: what two cores hold
            for person in range(30):
                for _ in range(4):
                    server.clock.now += 1 / 120
                    assert (await server.ask(READ, session=f"person {person}"))[0] == 200, second
        asked = [await server.ask(READ, session=f"made up {number}") for number in range(int(LIMITS.address_burst) + 50)]
        assert sum(status == 429 for status, _, _ in asked) >= 50
        assert (await server.ask(READ, session="elsewhere", address="10.0.0.2"))[0] == 200

    run(scenario())


@pytest.mark.parametrize(("proxied", "answered"), [(False, False), (True, True)])
def test_forwarded_addresses_count_by_flag_only(proxied, answered):
    async def scenario():
        server = Server(proxied=proxied)
        for _ in range(int(LIMITS.address_burst)):
            await server.ask(READ, session=f"{server.answered}", headers=[(b"x-forwarded-for", b"8.8.8.8")])
        status, _, _ = await server.ask(READ, session="x", headers=[(b"x-forwarded-for", b"8.8.8.8, 9.9.9.9")])
        assert (status == 200) is answered

    run(scenario())


def test_of_forwarded_addresses_the_proxys_own_entry_counts_not_the_visitors():
    async def scenario():
        server = Server(proxied=True)
        statuses = [
            (await server.ask(READ, session=f"{n}", headers=[(b"x-forwarded-for", f"1.2.3.{n}, 9.9.9.9".encode())]))[0]
            for n in range(int(LIMITS.address_burst) + 5)
        ]
        assert statuses.count(429) == 5

    run(scenario())


def test_passwords_cannot_be_tried_at_will():
    async def scenario():
        server = Server()
        tried = [await server.ask("/login", body=b"username=a&password=b") for _ in range(int(LIMITS.login_burst) + 3)]
        assert [status for status, _, _ in tried].count(429) == 3

    run(scenario())


def test_too_many_at_once_are_sent_away_with_a_sentence_and_come_back():
    async def scenario():
        server, leave = Server(), asyncio.Event()
        server.hold_until(leave)
        most = LIMITS.at_once + LIMITS.waiting
        asked = [asyncio.create_task(server.ask(READ, session=f"{n}")) for n in range(most + 20)]
        while sum(task.done() for task in asked) < 20:
            await asyncio.sleep(0)
        refused = [task.result() for task in asked if task.done()]
        assert {status for status, _, _ in refused} == {503}
        assert json.loads(refused[0][2])["detail"] == guard.BUSY and b"retry-after" in refused[0][1]
        leave.set()
        assert [status for status, _, _ in await asyncio.gather(*asked)].count(200) == most
        assert (await server.ask(READ))[0] == 200 and server.guard.requests == 0

    run(scenario())


def test_streams_are_bounded_by_address_and_given_back():
    async def scenario():
        server, leave = Server(), asyncio.Event()
        server.hold_until(leave)
        path = "/gradio_api/heartbeat/abc"
        streams = [asyncio.create_task(server.ask(path, method="GET")) for _ in range(LIMITS.streams_address + 3)]
        elsewhere = asyncio.create_task(server.ask(path, method="GET", address="10.0.0.9"))
        while sum(task.done() for task in streams) < 3:
            await asyncio.sleep(0)
        leave.set()
        statuses = [status for status, _, _ in await asyncio.gather(*streams)]
        assert statuses.count(503) == 3 and (await elsewhere)[0] == 200
        assert not server.guard.streams

    run(scenario())


@pytest.mark.parametrize(("path", "status"), [("/gradio_api/queue/join", 408), ("/gradio_api/upload", 408)])
def test_a_request_that_does_not_arrive_is_given_up(monkeypatch, path, status):
    from dataclasses import replace

    monkeypatch.setattr(guard, "LIMITS", replace(LIMITS, sending=0.01))

    async def scenario():
        server, sent = Server(), []

        async def never():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "client": ("a", 1), "headers": []}
        await server.guard(scope, never, send)
        assert sent[0]["status"] == status and sent[1]["body"].rstrip(b'"}').endswith(b".")
        assert server.guard.requests == 0

    run(scenario())


def test_work_that_takes_too_long_is_given_up(monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(guard, "LIMITS", replace(LIMITS, sending=0.005, answering=0.005))

    async def scenario():
        server = Server()

        async def stuck(scope, receive, send):
            await asyncio.Event().wait()

        server.guard.app = stuck
        assert (await server.ask(READ))[0] == 503

    run(scenario())


def test_without_room_no_more_pictures_are_taken():
    class Full:
        taken = 0

        def has_room(self, size):
            return False

    async def scenario():
        server = Server(shelf=Full())
        status, _, text = await server.ask("/gradio_api/upload")
        assert status == 503 and text.startswith("There is no room") and not server.answered

    run(scenario())
