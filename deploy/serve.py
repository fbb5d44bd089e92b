"""python -m deploy serve: /predict by Ray Serve, with workers that come and go with the crowd.

A worker is one Recognizer on one thread; requests that wait while it reads are read together as its next batch. POST a
picture file to /predict, raw or as a form, and get the contract's answer. Knows no page and no training.
"""

import argparse
import asyncio
import base64
import functools
import io
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse

from .cluster import ClusterError, count, joined  # isort: skip  # sets what Ray reads when it is imported

import ray
from ray import serve

from digitnet import PictureError, Prediction, Recognizer
from digitnet.checkpoint import DEFAULT_PATH, file_digest
from digitnet.preprocess import SIDE, open_picture, to_digit
from digitnet.remote import DIGITS_TYPE, MOST, full_answer

APP = "digitnet"
BATCH = 32  # requests read together, at most
WAITING = 256  # requests a worker may hold, read or waiting; beyond, another worker or a 503
BUSY = 4  # requests under way per worker above which there should be more workers


class _Refusal(Exception):
    """What was sent cannot be answered: a status of HTTP and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class _Work:
    """What one request wants read: framed digits, None for a blank sheet; all_views as Recognizer.read takes it."""

    digits: list[np.ndarray | None]
    all_views: bool = True


@serve.deployment
class Worker:
    """One Recognizer on one thread, behind HTTP.

    POST /predict: a picture, or framed digits (DIGITS_TYPE; with ?spare as Recognizer.read without all_views). POST /views
    and /saliency[?against=D]: one framed digit. GET /: what is known of the network.
    """

    def __init__(self, checkpoint: str | None):
        import torch

        torch.set_num_threads(1)
        self._recognizer = Recognizer.load(checkpoint)
        self._digest = file_digest(checkpoint or DEFAULT_PATH)
        # The reading thread leaves the loop free to gather the next batch.
        self._hand = ThreadPoolExecutor(1)
        self._recognizer.read([np.eye(SIDE, dtype=np.float32)])  # the first call is slow; the first visitor's is not

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            return JSONResponse(await self._answer(request))
        except _Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status)
        except PictureError as error:
            return JSONResponse({"error": str(error)}, 422)

    async def _answer(self, request: Request) -> dict:
        path = request.url.path.rstrip("/")
        method = "GET" if path == "" else "POST"
        if path not in ("", "/predict", "/views", "/saliency"):
            raise _Refusal(404, "There is nothing here; POST a picture to /predict.")
        if request.method != method:
            raise _Refusal(405, f"Use {method} for {path or '/'}.")
        if path == "":
            return {"predict": "POST a picture file to /predict", "checkpoint": self._digest, "card": self._recognizer.card}
        if path == "/predict" and request.headers.get("content-type") == DIGITS_TYPE:
            work = _Work(_digits(await request.body()), all_views="spare" not in request.query_params)
            predictions = await self._read(work)
            return {"predictions": [full_answer(prediction) for prediction in predictions]}
        if path == "/predict":
            picture = await _picture(request)
            digit = await self._do(lambda: to_digit(open_picture(io.BytesIO(picture))))
            (prediction,) = await self._read(_Work([digit]))
            return full_answer(prediction, extras="full" in request.query_params)
        (digit,) = _digits(await request.body(), most=1)
        if path == "/views":
            views, names, votes = await self._do(lambda: self._recognizer.views_of(digit))
            return {"views": base64.b64encode(views.tobytes()).decode(), "names": names, "votes": votes.tolist()}
        against = request.query_params.get("against", "")
        other = int(against) if against.isdigit() and len(against) == 1 else None
        weights = await self._do(lambda: self._recognizer.saliency(digit, against=other))
        return {"weights": weights.tolist()}

    async def _do(self, work):
        return await asyncio.get_running_loop().run_in_executor(self._hand, work)

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0)  # what waits when the hand is free, and no waiting for more
    async def _read(self, requests: list[_Work]) -> list[list[Prediction]]:
        predictions = {}
        for all_views in {request.all_views for request in requests}:
            digits = [digit for request in requests if request.all_views == all_views for digit in request.digits]
            read = functools.partial(self._recognizer.read, digits, all_views=all_views)
            predictions[all_views] = iter(await self._do(read))
        return [[next(predictions[request.all_views]) for _ in request.digits] for request in requests]


async def _picture(request: Request) -> bytes:
    """The picture's bytes: the first file of a form, or the body as it is."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            for value in form.values():
                if not isinstance(value, str):
                    return await value.read()
    except Exception as error:  # the parser and Starlette each raise their own
        raise _Refusal(400, "This form cannot be read; send one picture file in it.") from error
    raise _Refusal(400, "There is no file in this form; send one picture file in it.")


def _digits(body: bytes, *, most: int = MOST) -> list[np.ndarray]:
    """Framed digits, float32 28×28 in 0..1, from their bytes, one after the other."""
    number, rest = divmod(len(body), 4 * SIDE * SIDE)
    if rest or not 1 <= number <= most:
        raise _Refusal(400, f"Send 1 to {most} digits of {SIDE}×{SIDE} little-endian float32.")
    digits = np.frombuffer(body, "<f4").reshape(number, SIDE, SIDE)
    if not (np.isfinite(digits).all() and digits.min() >= 0 and digits.max() <= 1):
        raise _Refusal(400, "The values of a digit lie from 0, paper, to 1, ink.")
    return list(digits.astype(np.float32))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="HOST:PORT", help="a Ray cluster to work on (default: this machine alone)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000)")
    parser.add_argument("--workers", type=count, default=2, metavar="N", help="workers at most, a core each (default: 2)")
    parser.add_argument("--least", type=count, default=1, metavar="N", help="workers that stay when nobody asks (default: 1)")
    parser.add_argument("--rest", type=float, default=60, metavar="SECONDS", help="of calm before a worker goes (default: 60)")
    parser.add_argument(
        "--cpus", type=count, metavar="N", help="without --address: cores Ray may give out (default: --workers)"
    )
    parser.add_argument("--checkpoint", metavar="FILE", type=os.path.abspath, help="another checkpoint, there on every machine")


def run(args: argparse.Namespace) -> int:
    """Serves until told to stop; says where in one line. Raises ClusterError, CheckpointError."""
    if args.least > args.workers:
        raise ClusterError(f"--least is at most --workers, which is {args.workers}.")
    Recognizer.load(args.checkpoint)  # what is wrong with it is said here, not in a worker's log
    stop = threading.Event()
    with joined(args.address, workers=args.cpus or args.workers) as address:
        for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which sets its own
            signal.signal(number, lambda *_: stop.set())
        deploy(args)
        print(f"digitnet answers at http://{args.host}:{args.port}/predict", flush=True)
        print(f"Ray listens at {address}", flush=True)
        stop.wait()
        serve.shutdown()
    return 0


def deploy(args: argparse.Namespace) -> None:
    """Starts the workers, and HTTP on every node that has one. Raises ClusterError where the port is taken or none starts."""
    try:
        serve.start(proxy_location="EveryNode", http_options={"host": args.host, "port": args.port})
        worker = Worker.options(
            ray_actor_options={"num_cpus": 1},
            max_ongoing_requests=WAITING,
            autoscaling_config={
                "min_replicas": args.least,
                "initial_replicas": args.least,
                "max_replicas": args.workers,
                "target_ongoing_requests": BUSY,
                "upscale_delay_s": 2,
                "downscale_delay_s": args.rest,
                "metrics_interval_s": 1,
                "look_back_period_s": 3,
            },
            health_check_period_s=2,
            graceful_shutdown_timeout_s=5,
        )
        serve.run(worker.bind(args.checkpoint), name=APP)
    except (RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(f"Serve did not start at {args.host}:{args.port}: {str(error).splitlines()[-1]}") from error
