"""Pictures from any source to batches on the device: sources, the embedded photographs, augmentation, loading."""

from .augment import IMAGENET_MEAN, IMAGENET_STD, denormalize, normalize
from .convert import UnreadableImage
from .counter import counter_uniform
from .loader import Batch, Loader
from .sources import open_source, source_identity
from .splits import Source, Split

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "Loader",
    "Source",
    "Split",
    "UnreadableImage",
    "counter_uniform",
    "denormalize",
    "normalize",
    "open_source",
    "source_identity",
]
