"""Extractors: 16 kHz waveform to one frame every 20 ms.

Both extractors agree on the number of frames (window 400 samples, hop 320: HuBERT's
receptive field), so targets and segments fit either of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espnet_ofa.cif.tracing import needs_gradients, reads_for_free
from espnet_ofa.subsampling.chunks import Past, conv_in_chunks
from espnet_ofa.subsampling.lengths import valid_mask, zero_padding
from espnet_ofa.upstream.conv_inference import encode_rows

SAMPLE_RATE = 16000
WINDOW = 400  # samples that the first frame sees
HOP = 320  # samples per frame: 20 ms

Count = TypeVar("Count", int, Tensor)


def parse_rate(fs: int | str) -> int:
    """Sampling rate in Hz from ESPnet's ways to write it (16000, "16k").

    Raises:
        ValueError: no rate at all.
    """
    text = str(fs).lower()
    try:
        return round(float(text.removesuffix("k")) * (1000 if "k" in text else 1))
    except ValueError as error:
        raise ValueError(
            f"fs: expected a sampling rate, like 16000 or 16k; found {fs!r}"
        ) from error


def frontend_rate(conf: Mapping[str, Any] | None) -> int:
    """Sampling rate in Hz that a ``frontend_conf`` of ESPnet says; ours without one."""
    return parse_rate((conf or {}).get("fs") or SAMPLE_RATE)


def frame_lengths(samples: Count) -> Count:
    """Samples, a number or (B,), to frames; at least one for any audio at all."""
    frames = (samples - WINDOW) // HOP + 1
    short = (samples > 0) & (samples < WINDOW)
    return frames * (samples >= WINDOW) + short


def pad_to_whole_frames(wave: Tensor, lengths: Tensor) -> Tensor:
    """Zero the padding of (B, L) and make it long enough for one frame."""
    wave = wave * valid_mask(lengths, wave.shape[1])
    return F.pad(wave, (0, max(WINDOW - wave.shape[1], 0)))


def normalize_wave(wave: Tensor, lengths: Tensor, eps: float = 1e-7) -> Tensor:
    """(B, L) with zero mean and unit variance over each row's true samples.

    ``eps`` is that of Hugging Face's feature extractor; padding becomes zero.
    """
    mask = valid_mask(lengths, wave.shape[1])
    count = lengths.clamp(min=1)[:, None]
    x = wave.float()
    x = (x - (x * mask).sum(1, keepdim=True) / count) * mask
    variance = x.square().sum(1, keepdim=True) / count
    return (x * torch.rsqrt(variance + eps)).to(wave.dtype)


class LogMelExtractor(nn.Module):
    """Log-mel spectrogram, two 10 ms frames stacked to 20 ms, and a light stem.

    Stacked log-mel is the input of MelHuBERT (Lin et al., 2022). The stem, residual
    depthwise-separable convolutions, gives a frame some context before frames are
    averaged into units; ``stem_layers: 0`` leaves only the projection.

    Args:
        dim: width of the frames.
        mels: mel channels.
        stem_layers: residual convolution blocks.
        stem_kernel: their kernel in frames, odd.
        dropout: dropout in the stem.

    Attributes:
        sees: samples that one frame sees.
        chunk: frames in a chunk, beyond whose end no frame looks; None for no such end.
    """

    sees = WINDOW + HOP // 2
    chunk: int | None = None
    fbanks: Tensor
    window: Tensor

    def __init__(
        self,
        dim: int = 512,
        mels: int = 80,
        stem_layers: int = 0,
        stem_kernel: int = 7,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.n_fft = 512
        fbanks = _mel_fbanks(self.n_fft // 2 + 1, mels)
        self.register_buffer("fbanks", fbanks, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.project = nn.Linear(2 * mels, dim)
        self.stem = nn.ModuleList(
            _StemBlock(dim, stem_kernel, dropout) for _ in range(stem_layers)
        )

    def set_chunk(self, frames: int) -> None:
        """Look nowhere beyond the end of a chunk of so many frames."""
        self.chunk = frames
        for block in self.stem:
            block.chunk = frames  # type: ignore[assignment]

    def log_mel(
        self, wave: Tensor, lengths: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalised log-mel features, stacked to 20 ms.

        Mean and variance of each utterance are removed over its true frames; where
        there are chunks, over those of its own chunk and all before.

        Args:
            wave: (B, L) samples at 16 kHz.
            lengths: (B,) samples.
            past: of a stream.

        Returns:
            (B, S, 2 * mels) features and (B,) frames.
        """
        n_frames = frame_lengths(lengths)
        wave = pad_to_whole_frames(wave, lengths)
        size = (wave.shape[1] - WINDOW) // HOP + 1
        wave = F.pad(wave, (0, HOP))  # the second half of the last frame
        with torch.autocast(wave.device.type, enabled=False):
            power = self.power(wave.float(), 2 * size)
            mel = (power @ self.fbanks.float()).clamp(min=1e-10).log()
        mel = mel.unflatten(1, (size, 2)).flatten(2)  # (B, S, 2 * mels)
        mask = valid_mask(n_frames, size)[..., None]
        if self.chunk is not None:
            return self._normalize_so_far(mel, mask, past or Past()), n_frames
        count = n_frames.clamp(min=1)[:, None, None]
        mean = (mel * mask).sum(1, keepdim=True) / count
        centred = (mel - mean) * mask
        std = (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()
        return centred / std, n_frames

    def _normalize_so_far(self, mel: Tensor, mask: Tensor, past: Past) -> Tensor:
        """By mean and variance until each chunk's end. (B, S, F), (B, S, 1) bool."""
        assert self.chunk is not None
        size, width = mel.shape[1:]
        x = torch.where(mask, mel, 0.0).double()
        moments = torch.cat([x, x.square(), mask.double()], -1)
        moments = F.pad(moments, (0, 0, 0, -size % self.chunk))
        sums = moments.unflatten(1, (-1, self.chunk)).sum(2)  # (B, K, 2 F + 1)
        sums = past.add(self, sums)
        mean, power = (sums[..., :-1] / sums[..., -1:].clamp(min=1)).split(width, -1)
        std = ((power - mean.square()).clamp(min=0) + 1e-5).sqrt()
        mean, std = (
            y.repeat_interleave(self.chunk, dim=1)[:, :size] for y in (mean, std)
        )
        return torch.where(mask, (x - mean) / std, 0.0).to(mel.dtype)

    def power(self, wave: Tensor, size: int) -> Tensor:
        """(B, L) samples -> (B, size, bins) power of the first windows, 10 ms apart."""
        frames = wave.unfold(1, WINDOW, HOP // 2)[:, :size]
        frames = frames * self.window.float()
        return torch.fft.rfft(frames, self.n_fft).abs().square()

    def forward(
        self, wave: Tensor, lengths: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, L) samples and (B,) lengths -> (B, S, dim) frames and (B,) lengths.

        With ``past``, the samples are those that the frames of the next chunk see.
        """
        features, n_frames = self.log_mel(wave, lengths, past)
        x = self.project(features.to(self.window.dtype))  # of int8 weights too
        for block in self.stem:
            x = block(x, n_frames, past)
        return x, n_frames


def _mel_fbanks(bins: int, mels: int, low: float = 20.0) -> Tensor:
    """(bins, mels) triangles on the HTK mel scale, as torchaudio's, without it."""
    high = SAMPLE_RATE / 2
    start, end = (2595.0 * math.log10(1.0 + hz / 700.0) for hz in (low, high))
    points = torch.linspace(start, end, mels + 2)  # equally far apart in mel
    points = 700.0 * (10.0 ** (points / 2595.0) - 1.0)  # in Hz
    slopes = points - torch.linspace(0, high, bins)[:, None]  # (bins, mels + 2)
    widths = points.diff()
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


class _StemBlock(nn.Module):
    """Residual depthwise convolution over time and a pointwise layer."""

    chunk: int | None = None

    def __init__(self, dim: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd to stay centred; got {kernel}")
        self.norm = nn.LayerNorm(dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.pointwise = nn.Sequential(
            nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, lengths: Tensor, past: Past | None) -> Tensor:
        y = zero_padding(self.norm(x), lengths).transpose(1, 2)
        conv = self.depthwise
        if self.chunk is None:
            y = conv(y)
        else:
            y = conv_in_chunks(conv, conv.weight, conv.bias, y, self.chunk, past)
        return x + self.pointwise(y.transpose(1, 2))


class ConvExtractor(nn.Module):
    """HuBERT base's seven convolutions (Hsu et al., 2021; wav2vec 2.0, section 2).

    The group norm of the first layer takes its statistics over each utterance's true
    samples: over the padding of a batch, as released, an utterance would encode
    differently next to a longer one.

    Args:
        dim: channels.
        norm: ``group`` (base: one norm, first layer) or ``layer`` (large: every layer).
        bias: biases in the convolutions (large).
        layers: (channels, kernel, stride) of each layer, in the place of ``dim``: a
            pruned or slim front end. A frame must stay 400 samples long, every 320.
    """

    sees = WINDOW  # samples that one frame sees
    LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))

    def __init__(
        self,
        dim: int = 512,
        norm: str = "group",
        bias: bool = False,
        layers: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        if norm not in ("group", "layer"):
            raise ValueError(f"norm must be group or layer; got {norm!r}")
        if layers is None:
            layers = [(dim, *shape) for shape in self.LAYERS]
        check_layers(layers)
        self.dim = layers[-1][0]
        self.norm = norm
        self.convs = nn.ModuleList()
        before = 1
        for channels, kernel, stride in layers:
            self.convs.append(
                nn.Conv1d(before, channels, kernel, stride=stride, bias=bias)
            )
            before = channels
        normed = layers if norm == "layer" else layers[:1]
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels, _, _ in normed)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]

    def set_chunk(self, frames: int) -> None:
        """Look nowhere beyond the end of a chunk: no frame sees another's anyway.

        Raises:
            ValueError: the norm is over whole utterances.
        """
        if self.norm == "group":
            raise ValueError(
                "extractor: conv normalises its first layer over the whole utterance, "
                "which chunk cannot wait for: give extractor_conf: {norm: layer}, or "
                "take extractor: logmel"
            )

    def forward(
        self, wave: Tensor, lengths: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, L) samples and (B,) lengths -> (B, S, dim) frames and (B,) lengths.

        ``past`` is nothing to it: a frame is made of its own samples.
        """
        x = pad_to_whole_frames(wave, lengths).to(next(self.parameters()).dtype)
        steps = lengths.clamp(min=WINDOW)
        if reads_for_free(x) and not needs_gradients(x, self):
            samples = torch.where(lengths > 0, steps, 0).tolist()
            frames = encode_rows(self.convs, self.norms, x, samples)  # type: ignore
            return frames, frame_lengths(lengths)
        x = x[:, None]
        for i, conv in enumerate(self.convs):
            x = conv(x)
            (kernel,), (stride,) = conv.kernel_size, conv.stride  # type: ignore
            steps = (steps - kernel).div(stride, rounding_mode="floor") + 1
            if self.norm == "layer":
                x = self.norms[i](x.transpose(1, 2)).transpose(1, 2)
            elif i == 0:
                x = self._norm_over_time(x, steps)
            x = F.gelu(x)
        return x.transpose(1, 2), frame_lengths(lengths)

    def _norm_over_time(self, x: Tensor, steps: Tensor) -> Tensor:
        """Normalise each channel over its true steps. x: (B, C, T)."""
        norm = self.norms[0]
        mask = valid_mask(steps, x.shape[2])[:, None]
        count = steps[:, None, None]
        y = x.float()
        mean = (y * mask).sum(2, keepdim=True) / count
        var = ((y - mean) * mask).square().sum(2, keepdim=True) / count
        y = (y - mean) * torch.rsqrt(var + norm.eps)  # type: ignore[operator]
        y = y * norm.weight[:, None] + norm.bias[:, None]  # type: ignore[index]
        return y.to(x.dtype)


def check_layers(layers: Sequence[Sequence[int]]) -> None:
    """Raise ValueError unless a frame sees 400 samples, every 320."""
    window, hop = 1, 1
    for _, kernel, stride in layers:
        window += (kernel - 1) * hop
        hop *= stride
    if (window, hop) != (WINDOW, HOP):
        raise ValueError(
            f"extractor_conf: layers must be (channels, kernel, stride) that make a "
            f"frame of {WINDOW} samples every {HOP}; got {window} every {hop}"
        )


# SEW's compact extractor (Wu et al., 2021, section 4.2): narrow where the rate is high,
# each strided layer followed by a pointwise one.
SLIM = tuple(
    layer
    for channels, *strided in (
        (64, (10, 5)),
        (128, (3, 2), (1, 1), (3, 2), (1, 1)),
        (256, (3, 2), (1, 1), (3, 2), (1, 1)),
        (512, (2, 2), (1, 1), (2, 2), (1, 1)),
    )
    for layer in ((channels, *shape) for shape in strided)
)


class SlimExtractor(ConvExtractor):
    """SEW's compact convolutions: 13 % of the MACs of HuBERT's; see SLIM."""

    def __init__(self, norm: str = "group", bias: bool = False) -> None:
        super().__init__(norm=norm, bias=bias, layers=SLIM)


_EXTRACTORS = {
    "conv": ConvExtractor,
    "slim": SlimExtractor,
    "logmel": LogMelExtractor,
}


def build_extractor(kind: str, **conf) -> ConvExtractor | LogMelExtractor:
    """Build an extractor by name, ``conv | slim | logmel``.

    Raises:
        ValueError: unknown name.
    """
    if kind not in _EXTRACTORS:
        raise ValueError(
            f"extractor must be one of {', '.join(_EXTRACTORS)}; got {kind!r}"
        )
    return _EXTRACTORS[kind](**conf)
