"""Data sets, samplers and the loader that makes batches of them."""

from minidl.data.collate import default_collate, default_convert
from minidl.data.dataset import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minidl.data.loader import DataLoader
from minidl.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "default_collate",
    "default_convert",
    "random_split",
]
