"""Data sets: opened through one door, split once, remapped once."""

from terrazzo.data.dataset import Dataset, Split
from terrazzo.data.open import open_dataset

__all__ = ["Dataset", "Split", "open_dataset"]
