"""SEW's squeeze: a strided positional convolution beside mean pooling."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from espnet_ofa.subsampling.base import Compressor, CompressorOutput, check_input
from espnet_ofa.subsampling.choice import Choices, as_choices
from espnet_ofa.subsampling.chunks import Past
from espnet_ofa.subsampling.fixed import mean_windows, window_durations
from espnet_ofa.subsampling.lengths import subsampled_lengths, zero_padding
from espnet_ofa.subsampling.rate import Lam, LamRule


class PositionalConv(nn.Module):
    """Convolutional position embedding (wav2vec 2.0, section 2), added to its input.

    The stride is an argument of the call, so that one kernel serves every squeeze
    factor; the input is then averaged over as many frames (SEW, Wu et al., 2021).

    Args:
        dim: width.
        kernel: in frames (or units) of the input, whatever the stride.
        groups: of the convolution.

    Attributes:
        causal: see nothing of what comes later; with a stride of 1 only.
    """

    causal = False

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel = kernel
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=(4.0 / (kernel * dim)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.conv = weight_norm(conv, dim=2)

    def forward(
        self, x: Tensor, lengths: Tensor, stride: int = 1, past: Past | None = None
    ) -> Tensor:
        """(B, U, D), (B,) -> (B, ceil(U / stride), D).

        With ``past``, ``x`` goes on where the call before it ended; causal ones only.
        """
        x = zero_padding(x, lengths)
        conv, y = self.conv, x.transpose(1, 2)
        padding = conv.padding
        if self.causal:
            seen = self.kernel - 1
            y, padding = (past or Past()).before(self, y, seen), 0
        y = F.conv1d(
            y,
            conv.weight,  # type: ignore[arg-type]
            conv.bias,  # type: ignore[arg-type]
            stride,
            padding,  # type: ignore[arg-type]
            groups=conv.groups,  # type: ignore[arg-type]
        )
        skip = x if stride == 1 else mean_windows(x, lengths, stride)
        y = y[..., : skip.shape[1]]  # an even kernel adds one
        return skip + F.gelu(y).transpose(1, 2)


class SqueezeCompressor(Compressor):
    """Mean of every ``factor`` frames plus a positional convolution of that stride.

    In SEW (Wu et al., "Performance-Efficiency Trade-offs in Unsupervised Pre-training",
    2021) this *is* the Transformer's positional convolution: give the upstream
    ``pos_kernel: 0``, or it has two. SEW's is behind the projection to the
    Transformer's width; here, as all compressors, it is in front, at that of the
    extractor. With several factors all weights are shared (stochastic squeeze, Vyas et
    al., Interspeech 2022): the kernel looks at the same frames around a unit's first
    one whatever the stride, and pooling has no weights.

    Args:
        dim: width of the frames.
        factor: frames in a unit; or several factors, among which a
            :class:`~espnet_ofa.subsampling.choice.SqueezePolicy` chooses for each call.
        kernel: of the convolution, in frames.
        groups: of the convolution.
    """

    positional = True

    def __init__(
        self,
        dim: int,
        factor: Choices = 2,
        kernel: int = 31,
        groups: int = 16,
    ) -> None:
        super().__init__()
        self.factors = as_choices("factor", factor)
        self.position = PositionalConv(dim, kernel, groups)
        # Who chooses among several factors; the upstream sets it.
        self.choose: Callable[[], int] | None = None

    def factor(self) -> int:
        """The factor of this call."""
        if self.choose is not None:
            return self.choose()
        only, *others = self.factors
        if others:
            raise ValueError(
                f"squeeze with several factors {list(self.factors)} needs an upstream "
                "that chooses among them (frontend: ofa); elsewhere give one factor"
            )
        return only

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        lam: Lam | LamRule = 0.0,
        num_units: int | None = None,
    ) -> CompressorOutput:
        check_input(lengths, frames, num_units)
        factor = self.factor()
        units = self.position(frames, lengths, factor)
        durations = window_durations(lengths, units.shape[1], factor)
        return CompressorOutput(units, subsampled_lengths(lengths, factor), durations)
