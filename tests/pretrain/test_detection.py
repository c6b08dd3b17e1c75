"""Boundaries without text, on sounds whose boundaries are known."""

import numpy as np
import pytest

from espnet_ofa.pretrain.detection import (
    boundaries_from_change,
    change_peaks,
    fit_prominence,
    spectral_change,
)
from espnet_ofa.report.segments import BoundaryScore, evenly_spaced
from espnet_ofa.upstream.extractor import frame_lengths


def sounds(seed, count=15):
    """(L,) samples of noises, each in a band of its own, and their ends in seconds."""
    rng = np.random.default_rng(seed)
    waves, band = [], 0
    for length in rng.integers(1000, 3000, count):
        band = (band + rng.integers(1, 5)) % 6
        noise = np.fft.rfft(rng.standard_normal(length))
        hz = np.fft.rfftfreq(length, 1 / 16000)
        noise[(hz < 1000 * band) | (hz > 1000 * band + 1500)] *= 0.01
        waves.append(np.fft.irfft(noise, length))
    ends = np.cumsum([len(wave) for wave in waves]) / 16000
    return np.concatenate(waves).astype(np.float32), ends


@pytest.mark.parametrize("samples", [1, 399, 400, 719, 720, 16000])
def test_one_value_every_10_ms(samples):
    change = spectral_change(np.random.default_rng(0).standard_normal(samples))
    assert len(change) == 2 * frame_lengths(samples)
    ends = boundaries_from_change(change, 0.0)
    assert ends[-1] == frame_lengths(samples)
    assert (np.diff(ends, prepend=0) > 0).all()


def test_changes_of_sound_are_found():
    own, even = BoundaryScore(), BoundaryScore()
    data = [sounds(seed) for seed in range(8)]
    changes = [spectral_change(wave) for wave, _ in data]
    rate = sum(len(ends) for _, ends in data) / sum(len(c) / 2 for c in changes)
    prominence = fit_prominence(changes, rate)
    for change, (_, ends) in zip(changes, data, strict=True):
        found = 0.02 * boundaries_from_change(change, prominence)
        own.add(found, ends)
        even.add(evenly_spaced(found), ends)
    assert own.f1 > 0.85 > 0.6 > even.f1


@pytest.mark.parametrize("rate", [0.05, 0.1, 2 / 9])
def test_rate_is_what_was_asked_for(rate):
    rng = np.random.default_rng(1)
    changes = [spectral_change(rng.standard_normal(40000)) for _ in range(4)]
    prominence = fit_prominence(changes, rate)
    made = sum(len(boundaries_from_change(c, prominence)) for c in changes)
    frames = sum(len(c) for c in changes) / 2
    assert made / frames == pytest.approx(rate, rel=0.05)
    assert made < sum(len(change_peaks(c)[0]) for c in changes)


def test_more_than_there_are_peaks():
    assert fit_prominence([np.array([0.0, 1.0, 0.0, 0.5, 0.0, 0.0])], 1.0) == 0.0
