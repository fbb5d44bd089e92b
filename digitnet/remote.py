"""A Recognizer whose network is elsewhere: pictures become digits here, and a backend's /predict reads those over HTTP.

Reading changes nothing, so what a dying worker or a cut connection lost is asked again. The backend of `python -m deploy
serve` speaks this; docs/scale.md holds the format. Knows no page.
"""

import base64
import contextlib
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import httpx
import numpy as np

from .preprocess import SIDE, PictureError
from .recognizer import Prediction, Recognizer, blank

DIGITS_TYPE = "application/x-digitnet-digits"  # framed digits: float32, little-endian, 28×28 each, one after the other
MOST = 64  # digits in one request
TRIES = 3
PAUSE = 0.2  # seconds before the second try, twice that before the third
PATIENCE = 10.0  # seconds for one answer
KEPT = "Your drawing is kept; it is read as soon as that works again."


class BackendError(PictureError):
    """The backend gave no answer. Its text is one sentence for the person who drew; asking again later may help."""


class RemoteRecognizer(Recognizer):
    """Reads what Recognizer reads, and answers the same, with the network of a backend. Safe to call from several threads."""

    def __init__(self, url: str):
        """url: the backend's address, such as http://10.0.0.5:8000. It need not be up yet: whoever reads is told if it is not.

        Raises ValueError, in one sentence, for what is no address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"“{url}” is no address of a backend; write it like http://10.0.0.5:8000.")
        base = url.rstrip("/").removesuffix("/predict")
        timeout = httpx.Timeout(PATIENCE, connect=2.0)
        # trust_env off: a proxy that the environment names is for the internet, not for a backend next door.
        self._http = httpx.Client(base_url=base, timeout=timeout, trust_env=False)

    @property
    def card(self) -> dict:
        """What the backend says of its network's making; {} while it does not answer."""
        return self._about("card", {})

    @property
    def digest(self) -> str | None:
        """SHA-256 of the backend's checkpoint file, hex; None while it does not answer."""
        return self._about("checkpoint", None)

    def read(self, digits: Sequence[np.ndarray | None], *, all_views: bool = True) -> list[Prediction]:
        """As Recognizer.read. Raises BackendError where the backend does not answer."""
        inked = [digit for digit in digits if digit is not None]
        path = "/predict" if all_views else "/predict?spare"
        parts = [inked[start : start + MOST] for start in range(0, len(inked), MOST)]
        answers = iter([answer for part in parts for answer in self._read(path, part)])
        return [blank() if digit is None else next(answers) for digit in digits]

    def views_of(self, digit: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        """As Recognizer.views_of. Raises BackendError."""
        with _understood():
            said = self._ask("POST", "/views", _packed([digit]))
            views = np.frombuffer(base64.b64decode(said["views"]), np.uint8).reshape(-1, SIDE, SIDE)
            return views, tuple(said["names"]), np.array(said["votes"])

    def saliency(self, digit: np.ndarray, *, against: int | None = None) -> np.ndarray:
        """As Recognizer.saliency. Raises BackendError."""
        path = "/saliency" if against is None else f"/saliency?against={against}"
        with _understood():
            return np.array(self._ask("POST", path, _packed([digit]))["weights"], dtype=np.float32)

    def logits(self, digits):
        """Not to be had: the network is elsewhere, and a backend gives answers only."""
        raise BackendError("The backend gives answers, not logits.")

    def close(self) -> None:
        """Ends the connections that are kept open."""
        self._http.close()

    def _read(self, path: str, digits: Sequence[np.ndarray]) -> list[Prediction]:
        with _understood():
            said = self._ask("POST", path, _packed(digits))
            return [prediction_from(answer) for answer, _ in zip(said["predictions"], digits, strict=True)]

    def _about(self, what: str, otherwise):
        try:
            with _understood():
                return self._ask("GET", "/")[what]
        except BackendError:
            return otherwise

    def _ask(self, method: str, path: str, content: bytes | None = None) -> dict:
        """The backend's answer as JSON; asked again where it, or the way to it, broke down."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                got = self._http.request(method, path, content=content, headers={"content-type": DIGITS_TYPE})
            except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
                # Waited long enough already; so has the person in front of the page.
                raise BackendError(f"Reading takes too long just now. {KEPT}") from error
            except httpx.TransportError:
                continue
            if got.status_code < 500:
                got.raise_for_status()
                return got.json()
        raise BackendError(f"The reading service cannot be reached just now. {KEPT}")


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Turns whatever is wrong with an answer into one sentence."""
    try:
        yield
    except BackendError:
        raise
    except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
        raise BackendError("What the reading service says is not understood; --backend may name another program.") from error


def full_answer(prediction: Prediction, *, extras: bool = True) -> dict:
    """A Prediction as JSON: the contract of /predict, and with `extras` all the rest ("probabilities", "seen" as base64)."""
    answer = {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "verdict": prediction.verdict,
        "p_digit": prediction.p_digit,
        "top": [[digit, probability] for digit, probability in prediction.top(3)],
    }
    if extras:
        answer["probabilities"] = list(prediction.probabilities)
        answer["seen"] = base64.b64encode(prediction.seen.tobytes()).decode()
    return answer


def prediction_from(answer: dict) -> Prediction:
    """The Prediction that full_answer made this of, to the last bit. Raises KeyError, TypeError, ValueError for others."""
    return Prediction(
        digit=answer["digit"],
        confidence=answer["confidence"],
        probabilities=tuple(answer["probabilities"]),
        p_digit=answer["p_digit"],
        verdict=answer["verdict"],
        seen=np.frombuffer(base64.b64decode(answer["seen"]), np.uint8).reshape(SIDE, SIDE).copy(),
    )


def _packed(digits: Sequence[np.ndarray]) -> bytes:
    return np.stack(digits).astype("<f4").tobytes()
