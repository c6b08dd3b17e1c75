"""How frames become units: lambda, alpha, compressors and guidance."""

from espnet_ofa.subsampling.choice import (
    Squeeze,
    SqueezePolicy,
    SqueezeUnsetError,
    set_squeeze,
)
from espnet_ofa.subsampling.compressor import (
    Compressor,
    CompressorOutput,
    build_compressor,
)
from espnet_ofa.subsampling.policy import LamPolicy, LamUnsetError, fix_lam
from espnet_ofa.subsampling.predictor import AlphaPredictor
from espnet_ofa.subsampling.rate import (
    LamSampler,
    LearnableLam,
    compress_weights,
    lam_to_period_ms,
    period_ms_to_lam,
)

__all__ = [
    "AlphaPredictor",
    "Compressor",
    "CompressorOutput",
    "LamPolicy",
    "LamSampler",
    "LamUnsetError",
    "LearnableLam",
    "Squeeze",
    "SqueezePolicy",
    "SqueezeUnsetError",
    "build_compressor",
    "compress_weights",
    "fix_lam",
    "lam_to_period_ms",
    "period_ms_to_lam",
    "set_squeeze",
]
