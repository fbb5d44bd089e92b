"""Ray, here or elsewhere: started for this process on this machine, or joined by its address.

No dashboard, no usage statistics, no internet. Knows no pictures.
"""

import argparse
import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OBJECT_STORE = 128 * 2**20  # bytes; what travels are paths, rows and single pictures
STARTS = 3
FRONT = "deploy.front:layers"  # what stands before Serve's own HTTP server on every node
# Ray reads these when it is imported, its processes when they start: they are set before either.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": FRONT,
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_worker_niceness": "0",  # else everything else on the machine goes before the workers
    "OMP_NUM_THREADS": "1",  # the workers are the threads
}
os.environ.update(SETTINGS)

import ray  # noqa: E402

SHIPPED = ("digitnet", "deploy", "checkpoints")  # what of this repository a cluster's nodes are sent


class ClusterError(RuntimeError):
    """Ray that could not be started or reached. Its text is one sentence."""


def count(text: str) -> int:
    """A number of things on the command line: at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


@contextlib.contextmanager
def joined(address: str | None, *, workers: int) -> Iterator[str]:
    """A Ray to work on, for the length of a with block; gives its address.

    address: HOST:PORT of a cluster, which is sent the code and the shipped checkpoint; None starts Ray on this machine, with
    `workers` CPUs, and ends it afterwards. Raises ClusterError.
    """
    for name in ("ray", "ray.serve", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    found = _begun(address, workers)
    try:
        yield found.address_info["gcs_address"]
    finally:
        ray.shutdown()


def _begun(address: str | None, workers: int):
    """What ray.init says. On a busy machine Ray's half minute for its own start may not do: then it is tried again."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"address": "local", "num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    where = {"address": address, "runtime_env": _shipped()} if address else own
    for attempt in range(STARTS):
        try:
            return ray.init(**where, **quiet)
        except Exception as error:  # Ray raises Exception itself, too
            ray.shutdown()
            if address or attempt == STARTS - 1:
                named = f"at {address}" if address else "on this machine"
                raise ClusterError(f"Ray does not answer {named} ({str(error).splitlines()[0]}).") from error


def _shipped() -> dict:
    """The environment of this work on a cluster's nodes: this repository's code, without its tests, data and history."""
    others = [name for name in os.listdir(ROOT) if name not in SHIPPED]
    return {"working_dir": str(ROOT), "excludes": [f"/{name}" for name in others], "env_vars": SETTINGS}
