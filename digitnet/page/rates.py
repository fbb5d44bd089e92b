"""How often somebody may ask, and how many may be at work: token buckets by key, and a gate with a bounded queue.

Knows nothing of HTTP. Clocks are handed in, so that a test needs no waiting.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """A token bucket per key: `burst` tokens at first, `rate` more per second. At most `keys` are remembered."""

    def __init__(self, rate: float, burst: float, *, keys: int, clock: Callable[[], float] = time.monotonic):
        self.rate, self.burst, self.keys, self.clock = rate, burst, keys, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → tokens, when

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str) -> float:
        """Takes a token: 0.0 where there was one, else the seconds until there will be."""
        now = self.clock()
        tokens, then = self._levels.pop(key, (self.burst, now))
        # A clock set back gives nothing, and takes nothing.
        tokens = min(self.burst, tokens + self.rate * max(now - then, 0.0))
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
        self._levels[key] = (tokens if wait else tokens - 1, now)
        if len(self._levels) > self.keys:
            self._levels.popitem(last=False)
        return wait


class Full(Exception):
    """Nobody else may wait."""


class Gate:
    """`async with gate:` lets `at_once` through at a time, in the order they came; raises Full where `waiting` wait already."""

    def __init__(self, at_once: int, waiting: int):
        self._free = asyncio.Semaphore(at_once)
        self._waiting, self._most = 0, waiting

    async def __aenter__(self):
        if self._free.locked() and self._waiting >= self._most:
            raise Full
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_):
        self._free.release()
