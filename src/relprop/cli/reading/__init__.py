"""From the words INPUT to samples: pictures, arrays, tables and texts as tensors."""

from .samples import Sample, group, joined, picture_in, samples, text_of

__all__ = ["Sample", "group", "joined", "picture_in", "samples", "text_of"]
