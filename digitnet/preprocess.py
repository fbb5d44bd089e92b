"""picture → ink → digit: the one place where pixels are cropped, scaled or moved.

Training and the page both come through here, so the network is shown in use exactly what it was shown while it learned.
The framing is MNIST's own (LeCun, Cortes, Burges): ink on an empty field, the longer side of the ink scaled to 20 pixels
with an anti-aliasing filter, the centre of mass moved to the centre of 28×28. Knows no network and no page.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIDE = 28  # pixels, side of a digit
BOX = 20  # pixels, longer side of the ink inside it
MAX_PIXELS = 40_000_000  # a larger picture is refused before it is decoded
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # what a canvas, a camera or a scanner writes
WORKING_SIDE = 640  # pixels; larger pictures are reduced to this first: 32 times what a digit keeps

MIN_CONTRAST = 0.08  # of the full range; a sheet whose strongest mark is fainter than this is blank
FAINTEST = 0.04  # of the strongest ink; anything fainter is paper
NOISE_SIGMAS = 5.0  # paper grain below this many standard deviations is paper too

# What Pillow only warns about (a bomb, a directory cut short) is an error. Set once for the process: catch_warnings swaps a
# list that all threads share, and several read pictures at once.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("error", category=UserWarning, module=r"PIL\.")


class PictureError(ValueError):
    """A picture that cannot be read. Its text is one sentence for the person who sent it."""


@dataclass(frozen=True)
class Crop:
    """Where the ink of a picture lies: half-open pixel rows and columns of the ink array it was found in."""

    top: int
    bottom: int
    left: int
    right: int


def open_picture(path) -> Image.Image:
    """Opens and fully decodes a picture file: the first frame, turned upright by its EXIF orientation.

    path: str, path-like or a binary file object. Raises PictureError, in one sentence, for anything that is not a whole
    picture of at most MAX_PIXELS in one of FORMATS.
    """
    name = "The file"
    try:
        if isinstance(path, (str, os.PathLike)):
            name = f"“{_printable(Path(path).name)}”"
            _must_be_a_file(path, name)
        with _opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise PictureError(
                    f"{name} has {image.width}×{image.height} pixels; at most {MAX_PIXELS // 10**6} million are read."
                )
            image.load()
            return _upright(image)
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError(f"{name} needs more memory than there is left here; send a smaller picture.") from error
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist.") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read: permission denied.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name} has too many pixels; at most {MAX_PIXELS // 10**6} million are read.") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture this program reads (PNG, JPEG, WebP, BMP, GIF, TIFF).") from error
    # Pillow's decoders raise whatever they trip over (OSError, SyntaxError, struct.error, ...): all mean the same here. An
    # OSError of the system's, unlike theirs, has a number.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PictureError(f"{name} cannot be read ({error.strerror}).") from error
        raise PictureError(f"{name} is damaged or not a whole picture.") from error


def _opened(path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except UserWarning:
        # A JPEG's EXIF is read as it is opened, and often broken by what passed the picture on; the pixels are whole.
        if isinstance(path, (str, os.PathLike)):
            content = Path(path).read_bytes()
        else:
            path.seek(0)
            content = path.read()
        if not content.startswith(b"\xff\xd8"):
            raise
        return Image.open(io.BytesIO(_without_exif(content)), formats=FORMATS)


def _without_exif(jpeg: bytes) -> bytes:
    """A JPEG file without its APP1 segments, where EXIF stands."""
    kept, place = [jpeg[:2]], 2
    while jpeg[place : place + 1] == b"\xff" and jpeg[place + 1 : place + 2] != b"\xda":  # up to the pixels
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4])
        if jpeg[place + 1 : place + 2] != b"\xe1":
            kept.append(jpeg[place:end])
        place = end
    return b"".join(kept) + jpeg[place:]


def _must_be_a_file(path, name: str) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise PictureError(f"{name} is a folder, not a picture.")
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever for somebody to write into it
        raise PictureError(f"{name} is a pipe or a device, not a picture file.")


def _printable(name: str, most: int = 80) -> str:
    """A file's name in one line that any log takes, its middle left out where it is very long."""
    name = "".join(c if c.isprintable() else "�" for c in name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 + 1 :]}"


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    # Broken EXIF can raise anything; it says nothing about which way is up, and the pixels are whole.
    except Exception:
        return image.copy()


def to_ink(picture) -> np.ndarray:
    """Any picture as ink: float32, H×W, 0 paper to 1 the strongest mark a picture can hold.

    picture: path, PIL.Image of any mode, or uint8 array H×W, H×W×1, H×W×3 (RGB) or H×W×4 (RGBA). Dark on light or light
    on dark: the border says which is paper. Transparent parts are paper. A picture larger than WORKING_SIDE is reduced
    (area average). Raises PictureError for what cannot be read.
    """
    try:
        return _ink(_reduce(_to_gray(picture)))
    except MemoryError as error:
        raise PictureError("The picture needs more memory than there is left here; send a smaller one.") from error


def _ink(gray: np.ndarray) -> np.ndarray:
    # The paper is what most of the border shows; ink may touch the border, but does not cover half of it.
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    paper = _median(border)
    darkest, lightest = paper - gray.min(), gray.max() - paper
    # Which way the ink goes is told by the stronger marks, or near mid-grey paper a few specks would decide.
    dark = float(darkest) * float(paper) >= float(lightest) * (1.0 - float(paper))
    reach = max(float(paper if dark else 1 - paper), 0.25)
    noise = float(_median(np.abs(border - paper))) * 1.4826  # median absolute deviation → standard deviation
    strongest = min(float((darkest if dark else lightest) / np.float32(reach)), 1.0)
    if strongest < max(MIN_CONTRAST, 2 * NOISE_SIGMAS * noise):
        return np.zeros_like(gray)
    # In place from here: on a whole sheet, every further array costs more than what is done with it.
    ink = paper - gray if dark else gray - paper
    ink /= np.float32(reach)
    np.clip(ink, 0.0, 1.0, out=ink)
    ink *= ink >= np.float32(max(FAINTEST * strongest, NOISE_SIGMAS * noise))
    return ink


def _median(values: np.ndarray) -> np.float32:
    """np.median of an even number of float32 values, without its many checks; a sheet's border always has that many."""
    ordered, middle = np.sort(values), values.size // 2
    return (ordered[middle - 1] + ordered[middle]) / np.float32(2)


def find_ink(ink: np.ndarray) -> Crop | None:
    """The smallest box that holds all ink above zero; None where there is none. ink: H×W."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not rows.size:
        return None
    return Crop(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def frame(ink: np.ndarray) -> np.ndarray | None:
    """Ink framed the way MNIST was made: float32 28×28 in 0..1, or None where there is no ink.

    ink: float H×W in 0..1, such as to_ink gives. The longer side of the inked box becomes 20 pixels; the centre of mass
    comes to the middle, as far as the box stays inside the field. A line thinner than a pixel of the result would come
    out as a grey shadow, so ink that is faint all over is raised until its strong parts are full.
    """
    crop = find_ink(ink)
    if crop is None:
        return None
    inked = ink[crop.top : crop.bottom, crop.left : crop.right]
    height, width = inked.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if (width, height) == size or max(height, width) == BOX - 1:
        # What is at size already is left alone: resampling by less than a pixel would only blur it.
        size = (width, height)
        small = inked.astype(np.float32)
    else:
        resized = Image.fromarray(np.ascontiguousarray(inked, dtype=np.float32)).resize(size, Image.Resampling.BILINEAR)
        small = np.asarray(resized, dtype=np.float32)
    strong = _strong(small)
    small = np.minimum(small / max(strong, 1e-3), 1.0) if strong < 0.98 else small
    mass = max(float(small.sum()), 1e-6)
    row = float((small.sum(axis=1) * (np.arange(size[1]) + 0.5)).sum()) / mass
    column = float((small.sum(axis=0) * (np.arange(size[0]) + 0.5)).sum()) / mass
    top = min(max(round(SIDE / 2 - row), 0), SIDE - size[1])
    left = min(max(round(SIDE / 2 - column), 0), SIDE - size[0])
    digit = np.zeros((SIDE, SIDE), dtype=np.float32)
    digit[top : top + size[1], left : left + size[0]] = small
    return digit


def _strong(small: np.ndarray) -> float:
    """How strong the strong parts are: the 0.9 quantile (np.quantile's, without its many checks) of what is not faint."""
    ordered = np.sort(small[small > FAINTEST])
    if not ordered.size:
        return float(small.max())
    place = 0.9 * (ordered.size - 1)
    below = int(place)
    above = min(below + 1, ordered.size - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * np.float32(place - below))


def to_digit(picture) -> np.ndarray | None:
    """picture → ink → digit in one call: float32 28×28 in 0..1, ink 1 on paper 0; None for a blank sheet.

    Takes what to_ink takes and raises what it raises.
    """
    return frame(to_ink(picture))


def _to_gray(picture) -> np.ndarray:
    """Luminance, float32 H×W in 0..1, transparency laid over the paper."""
    if isinstance(picture, (str, os.PathLike)):
        picture = open_picture(picture)
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if not isinstance(picture, Image.Image):
        raise PictureError(f"A picture is a path, a PIL image or a uint8 array, not {type(picture).__name__}.")
    if 0 in picture.size:
        raise PictureError("The picture has no pixels.")
    if picture.width * picture.height > MAX_PIXELS:
        raise PictureError(f"The picture has too many pixels; at most {MAX_PIXELS // 10**6} million are read.")
    try:
        picture.load()
    except MemoryError:
        raise
    # A picture that Pillow has opened and not yet decoded: see open_picture.
    except Exception as error:
        raise PictureError("The picture is damaged or not whole.") from error
    try:
        return _luminance(picture)
    except ValueError as error:
        raise PictureError(f"The picture's kind of pixels ({picture.mode}) is none this program reads.") from error


def _luminance(picture: Image.Image) -> np.ndarray:
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _deep_to_gray(picture)
    if picture.mode == "LAB":  # no way from here to gray but through a colour profile; its first channel is the lightness
        picture = picture.getchannel("L")
    if picture.mode == "La":
        picture = picture.convert("LA")
    if not picture.has_transparency_data:
        return np.divide(np.asarray(picture.convert("L")), 255, dtype=np.float32)
    rgba = picture.convert("RGBA")
    # Light ink on nothing vanishes over white paper: where all that is solid is light, the paper it was meant for is black.
    luminance, opacity = np.asarray(rgba.convert("L")), np.asarray(rgba.getchannel("A"))
    solid = luminance[opacity >= 230]
    paper = "black" if solid.size and solid.min() >= 160 and opacity.min() < 230 else "white"
    sheet = Image.new("RGBA", rgba.size, paper)
    return np.asarray(Image.alpha_composite(sheet, rgba).convert("L"), dtype=np.float32) / 255.0


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise PictureError(f"An array picture is uint8 H×W, H×W×3 or H×W×4, not {array.dtype} {'×'.join(map(str, shape))}.")
    if 0 in shape:
        raise PictureError("The picture has no pixels.")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array)


def _deep_to_gray(picture: Image.Image) -> np.ndarray:
    """Modes of 16 and 32 bits a pixel, which convert("L") would clip at 255."""
    values = np.array(picture, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        # A hole in a scan shows what is around: paper. (np.median would add two of the largest floats up to infinity.)
        values[~finite] = np.partition(values[finite], finite.sum() // 2)[finite.sum() // 2] if finite.any() else 0.0
    low, high = float(values.min()), float(values.max())
    if low >= 0.0:
        full = next((full for full in (1.0, 255.0, 65535.0) if high <= full), high)
        if picture.mode.startswith("I;16"):
            full = 65535.0
        return values / np.float32(full)
    # Halved first: the span of all float32 is none of them.
    return (values / 2 - np.float32(low / 2)) / np.float32(max(high / 2 - low / 2, 1e-6))


def _reduce(gray: np.ndarray) -> np.ndarray:
    """At most WORKING_SIDE pixels a side, by area average: whole factors, so that no line is lost between samples."""
    factor = -(-max(gray.shape) // WORKING_SIDE)
    if factor <= 1:
        return gray
    return np.asarray(Image.fromarray(gray).reduce(factor), dtype=np.float32)
