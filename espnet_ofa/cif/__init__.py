"""Continuous integrate-and-fire (CIF): frames to units, and back."""

from espnet_ofa.cif.api import expand, integrate_and_count, integrate_and_fire
from espnet_ofa.cif.streaming import StreamingCIF
from espnet_ofa.cif.types import CIFOutput

__all__ = [
    "CIFOutput",
    "StreamingCIF",
    "expand",
    "integrate_and_count",
    "integrate_and_fire",
]
