"""digitnet reads handwritten digits.

from digitnet import Recognizer
Recognizer.load()("drawing.png").digit
"""

from .checkpoint import CheckpointError
from .preprocess import PictureError
from .recognizer import Prediction, Recognizer

__all__ = ["CheckpointError", "PictureError", "Prediction", "Recognizer"]
__version__ = "0.1.0"
