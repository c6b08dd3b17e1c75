"""Drop utterances that are too short, too long, or have an empty transcript."""

from __future__ import annotations

from dataclasses import dataclass

from espnet_ofa.data.kaldi_dir import DataDir


@dataclass(frozen=True)
class FilterReport:
    """What was dropped and why.

    Attributes:
        kept: utterances left.
        hours: of what is left.
        dropped: utterance to reason (``too short``, ``too long``, ``empty text``).
    """

    kept: int
    hours: float
    dropped: dict[str, str]

    def summary(self) -> str:
        """One line for the log."""
        reasons: dict[str, int] = {}
        for reason in self.dropped.values():
            kind = reason.partition(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
        why = ", ".join(f"{count} {kind}" for kind, count in sorted(reasons.items()))
        total = self.kept + len(self.dropped)
        return (
            f"kept {self.kept} of {total} utterances ({self.hours:.2f} h)"
            f"; dropped: {why or 'none'}"
        )


def filter_utterances(
    data: DataDir,
    *,
    sample_rate: int = 16000,
    min_seconds: float = 0.1,
    max_seconds: float = 20.0,
) -> tuple[DataDir, FilterReport]:
    """Keeps utterances whose duration is in [min_seconds, max_seconds].

    Args:
        data: with ``num_samples`` (made by formatting).
        sample_rate: of the audio, hertz.
        min_seconds: shortest audio kept.
        max_seconds: longest audio kept.

    Raises:
        ValueError: no sample counts, an empty range, or nothing would be left.
    """
    if data.num_samples is None:
        raise ValueError("no utt2num_samples: format the audio before filtering")
    if not 0 <= min_seconds < max_seconds:
        raise ValueError(
            f"durations [{min_seconds}, {max_seconds}] s: expected 0 <= min < max"
        )
    dropped: dict[str, str] = {}
    for utt, count in sorted(data.num_samples.items()):
        seconds = count / sample_rate
        if seconds < min_seconds:
            dropped[utt] = f"too short: {seconds:.3f} s < {min_seconds:g} s"
        elif seconds > max_seconds:
            dropped[utt] = f"too long: {seconds:.2f} s > {max_seconds:g} s"
        elif data.text is not None and not data.text[utt].strip():
            dropped[utt] = "empty text"
    kept = [utt for utt in data.utterances if utt not in dropped]
    if not kept:
        raise ValueError(
            f"all {len(data)} utterances would be dropped "
            f"(for example {next(iter(dropped.items()))}): check the limits"
        )
    hours = sum(data.num_samples[utt] for utt in kept) / sample_rate / 3600
    return data.subset(kept), FilterReport(len(kept), hours, dropped)
