"""What decoding measured, as sums that add up over jobs: ``stats.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from espnet_ofa.files import write_text

STATS_NAME = "stats.json"
_SUMS = (
    "utterances",
    "units",
    "audio_seconds",
    "encoder_seconds",
    "decode_seconds",
    "macs",
    "macs_seconds",
    "capped",
    "too_short",
)
_OPTIONAL_SUMS = ("frames", "frame_seconds", "infeasible")


@dataclass
class DecodeStats:
    """One test set decoded at one lambda or squeeze.

    Attributes:
        test_set: its name.
        lam: lambda; None for a model without one.
        adaptive: lambda was learned with the model.
        lam_start: where a learned lambda began.
        squeeze: ``S,q,k``; None for a model without a choice.
        utterances: how many were decoded.
        units: over all utterances; see :class:`espnet_ofa.report.meter.EncoderMeter`.
        frames: extractor outputs; None where no part of the model compresses.
        frame_seconds: frames times the frame's own length.
        audio_seconds: length of the audio.
        encoder_seconds: wall time of ``model.encode``.
        decode_seconds: wall time of the search, without the encoder.
        macs: multiply-accumulates of the encoder over ``macs_seconds`` of audio.
        macs_seconds: audio over which MACs were counted.
        capped: hypotheses cut off at the maximum length.
        infeasible: utterances with fewer units than CTC needs for the reference; None
            without references.
        too_short: utterances that the encoder refused as too short.
        parameters: parameters of the model, by top-level part.
        reference: Kaldi text file with the references, None if there is none.
        phones: hypotheses and references are phones, not words.
        model_sha256: of the weights that were read, by
            :func:`espnet_ofa.report.budget.model_checksum`; None where nobody took
            note.
        setup: how it was decoded and on what (search, beam, threads, device ...).
    """

    test_set: str
    lam: float | None = None
    adaptive: bool = False
    lam_start: float | None = None
    squeeze: str | None = None
    utterances: int = 0
    units: int = 0
    frames: int | None = None
    frame_seconds: float | None = None
    audio_seconds: float = 0.0
    encoder_seconds: float = 0.0
    decode_seconds: float = 0.0
    macs: float = 0.0
    macs_seconds: float = 0.0
    capped: int = 0
    infeasible: int | None = None
    too_short: int = 0
    parameters: dict[str, int] = field(default_factory=dict)
    reference: str | None = None
    phones: bool = False
    model_sha256: str | None = None
    setup: dict[str, object] = field(default_factory=dict)

    @property
    def period_ms(self) -> float:
        """Measured frame period in ms: frame length x frames / units.

        Without a part that counts frames: audio / units, which is longer by the audio
        that does not fill a last frame.
        """
        covered = self.audio_seconds
        if self.frame_seconds is not None:
            covered = self.frame_seconds
        return 1000.0 * covered / self.units if self.units else float("nan")

    @property
    def units_per_second(self) -> float:
        """Units per second of audio."""
        return self.units / self.audio_seconds if self.audio_seconds else float("nan")

    @property
    def macs_per_second(self) -> float:
        """Encoder MACs per second of audio, on the utterances sampled for it."""
        return self.macs / self.macs_seconds if self.macs_seconds else float("nan")

    @property
    def rtf(self) -> float:
        """Real-time factor: wall time of encoder and search over audio time."""
        spent = self.encoder_seconds + self.decode_seconds
        return spent / self.audio_seconds if self.audio_seconds else float("nan")

    @property
    def encoder_rtf(self) -> float:
        """Real-time factor of the encoder alone."""
        if not self.audio_seconds:
            return float("nan")
        return self.encoder_seconds / self.audio_seconds

    def save(self, decode_dir: str | Path) -> Path:
        """Write ``decode_dir/stats.json``: the sums, and what follows from them."""
        derived = {
            "period_ms": self.period_ms,
            "units_per_second": self.units_per_second,
            "macs_per_second": self.macs_per_second,
            "rtf": self.rtf,
            "encoder_rtf": self.encoder_rtf,
        }
        content = {**asdict(self), "derived": derived}
        text = json.dumps(content, indent=2) + "\n"
        return write_text(Path(decode_dir) / STATS_NAME, text)


def load_stats(decode_dir: str | Path) -> DecodeStats:
    """Read ``decode_dir/stats.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not what :meth:`DecodeStats.save` writes.
    """
    path = Path(decode_dir) / STATS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; decode with `python -m "
            "espnet_ofa.bin.asr_inference --lam ... --test_set ...`, which writes it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("derived", None)
        return DecodeStats(**content)
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        names = ", ".join(f.name for f in fields(DecodeStats))
        raise ValueError(f"{path}: {error}; expected the keys {names}") from error


def merge_stats(parts: Sequence[DecodeStats]) -> DecodeStats:
    """Add up the jobs of one decoding, each of which saw other utterances.

    Raises:
        ValueError: no parts, or parts of different test sets or settings.
    """
    if not parts:
        raise ValueError("merge_stats needs at least one part")
    first = parts[0]
    for part in parts[1:]:
        if _what(part) != _what(first):
            raise ValueError(f"cannot add up {_what(part)} and {_what(first)}")
    total = DecodeStats(**asdict(first))
    for name in _SUMS:
        setattr(total, name, sum(getattr(part, name) for part in parts))
    for name in _OPTIONAL_SUMS:
        values = [getattr(part, name) for part in parts]
        setattr(total, name, None if None in values else sum(values))
    return total


def _what(part: DecodeStats) -> str:
    setting = f"{part.test_set} at lambda {part.lam}, squeeze {part.squeeze}"
    return f"{setting} of model {part.model_sha256}"
