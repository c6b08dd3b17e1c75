"""Segments without text: phones change where the spectrum changes fastest.

The spectral transition measure (Furui, 1986) is the mean square of the slopes of the
cepstra, here of the log-mel channels, each a regression over some 10 ms steps. Its
peaks lie near phone boundaries (Dusan and Rabiner, Interspeech 2006). Which ones count
is decided by their prominence, how far they rise above their surroundings; one
threshold for all utterances gives the rate that is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from espnet_ofa.upstream.extractor import LogMelExtractor

STEP = 0.5  # of the measure: half a frame, 10 ms
# The window of the first step is 25 ms long; what it sees is half of that later.
CENTRE = 0.625
SLOPE_STEPS = 2  # regression over so many steps on both sides


def spectral_change(samples: np.ndarray, mels: int = 40) -> np.ndarray:
    """How fast the spectrum changes, every 10 ms.

    Args:
        samples: (L,) at 16 kHz.
        mels: channels.

    Returns:
        (2 S,) mean squared slope of the normalised log-mel channels; S is frames.
    """
    wave = torch.from_numpy(np.asarray(samples, np.float32))[None]
    extractor = LogMelExtractor(dim=1, mels=mels)
    with torch.no_grad():
        mel, _ = extractor.log_mel(wave, torch.tensor([wave.shape[1]]))
    steps = mel[0].reshape(-1, mels).numpy()  # (2 S, mels)
    weights = np.arange(-SLOPE_STEPS, SLOPE_STEPS + 1)
    padded = np.pad(steps, ((SLOPE_STEPS, SLOPE_STEPS), (0, 0)), "edge")
    slopes = (
        sum(w * padded[i : i + len(steps)] for i, w in enumerate(weights.tolist()))
        / np.square(weights).sum()
    )
    return np.square(slopes).mean(1)


def change_peaks(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Peaks of :func:`spectral_change`: their steps and prominences."""
    from scipy.signal import find_peaks

    steps, facts = find_peaks(change, prominence=0)
    return steps, facts["prominences"]


def fit_prominence(changes: Sequence[np.ndarray], target_rate: float) -> float:
    """Least prominence at which segments have the target rate.

    Args:
        changes: :func:`spectral_change` of some utterances.
        target_rate: wanted segments per frame (2/9: 90 ms).

    Returns:
        The prominence; 0.0 when all peaks together are rarer than wanted.
    """
    prominences = np.sort(np.concatenate([change_peaks(c)[1] for c in changes]))[::-1]
    frames = STEP * sum(map(len, changes))
    wanted = int(target_rate * frames) - len(changes)  # ends of utterances come free
    if wanted >= len(prominences):
        return 0.0
    return float(prominences[max(wanted, 1) - 1])


def boundaries_from_change(change: np.ndarray, prominence: float) -> np.ndarray:
    """First frame after each segment; the last entry is the number of frames."""
    steps, prominences = change_peaks(change)
    num_frames = len(change) // 2
    ends = np.rint(STEP * steps[prominences >= prominence] + CENTRE).astype(int)
    return np.append(np.unique(ends[(ends >= 1) & (ends < num_frames)]), num_frames)
