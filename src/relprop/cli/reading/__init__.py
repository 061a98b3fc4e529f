"""From the words INPUT to samples: pictures, arrays, tables and texts as tensors."""

from .samples import Sample, group, joined, samples

__all__ = ["Sample", "group", "joined", "samples"]
