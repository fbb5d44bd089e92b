"""Reads a picture over plain HTTP, as any language could: upload, call, result.

python docs/plain_http.py http://127.0.0.1:7860 drawing.png
"""

import json
import sys
from pathlib import Path

import httpx


def predict(address: str, path: str) -> dict:
    """The answer of /predict for one picture file. Raises RuntimeError with the server's sentence where it refuses."""
    base = address.rstrip("/") + "/gradio_api"
    with httpx.Client(timeout=60) as http:
        with open(path, "rb") as file:
            uploaded = http.post(f"{base}/upload", files={"files": (Path(path).name, file)})
        uploaded.raise_for_status()
        picture = {"path": uploaded.json()[0], "meta": {"_type": "gradio.FileData"}}
        called = http.post(f"{base}/call/predict", json={"data": [picture]})
        called.raise_for_status()
        result = http.get(f"{base}/call/predict/{called.json()['event_id']}")  # server-sent events: "event:", "data:"
        result.raise_for_status()
    lines = dict(line.split(": ", 1) for line in result.text.splitlines() if ": " in line)
    if lines.get("event") != "complete":
        raise RuntimeError(lines.get("data", "the server gave no answer"))
    return json.loads(lines["data"])[0]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    try:
        print(json.dumps(predict(*sys.argv[1:]), indent=1))
    except (httpx.HTTPError, OSError, RuntimeError) as error:
        sys.exit(str(error))
