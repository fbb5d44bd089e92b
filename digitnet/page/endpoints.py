"""For programs: /predict and /predict_many, on the API page, by gradio_client, by plain HTTP and as MCP tools."""

import os
import tempfile
from pathlib import Path

import gradio as gr

from ..preprocess import PictureError
from .limits import LIMITS


def add_endpoints(recognizer) -> None:
    """Adds the endpoints to the Blocks being built."""

    def predict(picture: gr.FileData) -> dict:
        """Read the handwritten digit in one picture file (PNG, JPEG, WebP, BMP, GIF or TIFF; dark on light or light on dark).

        Args:
            picture: the picture file.

        Returns:
            {"digit": 0 to 9 or null on a blank sheet, "confidence": 0 to 1, "verdict": "digit", "unsure", "not_a_digit"
            or "blank", "p_digit": 0 to 1, "top": [[digit, probability], ...] the three likeliest}.
        """
        return _answer(_read(recognizer, [_path(picture)])[0])

    def predict_many(pictures: list[gr.FileData]) -> list[dict]:
        """Read the handwritten digits in many picture files at once; the answers come in the order of the files.

        Args:
            pictures: the picture files, at most 64.

        Returns:
            One answer per picture, as /predict gives it; a picture that cannot be read has {"error": sentence} instead.
        """
        if not isinstance(pictures, list) or len(pictures) > LIMITS.pictures:
            raise gr.Error(f"Send a list of at most {LIMITS.pictures} pictures.", print_exception=False)
        answers = []
        for picture in pictures:
            try:
                answers.append(_answer(recognizer(_path(picture))))
            except gr.Error as error:
                answers.append({"error": error.message})
            except PictureError as error:
                answers.append({"error": str(error)})
        return answers

    gr.api(predict, api_name="predict", concurrency_limit=LIMITS.at_once, concurrency_id="read")
    gr.api(predict_many, api_name="predict_many", concurrency_limit=LIMITS.at_once, concurrency_id="read")


def _read(recognizer, paths: list[str]) -> list:
    try:
        return recognizer.many(paths)
    except PictureError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _path(picture) -> str:
    """The uploaded file's path; a file that was not uploaded here is none of the caller's business."""
    path = picture.get("path") if isinstance(picture, dict) else getattr(picture, "path", None)
    if not isinstance(path, str) or not path:
        raise gr.Error("Send one picture file: upload it first, then name its path.", print_exception=False)
    folder = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio").resolve()
    try:
        inside = Path(path).resolve().is_relative_to(folder) and Path(path).is_file()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise gr.Error("This file has not been uploaded here, or is no longer kept. Upload it again.", print_exception=False)
    return path


def _answer(prediction) -> dict:
    return {
        "digit": prediction.digit,
        "confidence": prediction.confidence,
        "verdict": prediction.verdict,
        "p_digit": prediction.p_digit,
        "top": [[digit, probability] for digit, probability in prediction.top(3)],
    }
