"""Directions in the residual, apart from any bank: their file, and that of llama.cpp."""

from emowatch.vectors.file import Vectors

__all__ = ["Vectors"]
