"""Speed perturbation: ids, durations, pitch, boundaries, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from espnet_ofa.data.audio import audio_info, read_mono
from espnet_ofa.data.perturb import perturb_speed, perturbed_id


def peak_frequency(path: str, start: float, end: float) -> float:
    """Strongest frequency (Hz) of a part of a file, given as shares of its length."""
    wave, rate = read_mono(path)
    part = wave[int(start * len(wave)) : int(end * len(wave))]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 8 * len(part)))
    return float(np.argmax(spectrum) * rate / (8 * len(part)))


@pytest.mark.parametrize("nj", [1, 2])
def test_ids_durations_and_boundaries(make_data, tmp_path, nj):
    data = make_data()
    result = perturb_speed(data, [0.9, 1.0, 1.1], tmp_path / "sp", nj=nj)
    assert len(result) == 3 * len(data)
    assert result.utt2spk["sp0.9-anna-0"] == "sp0.9-anna"
    assert result.wav["anna-0"] == data.wav["anna-0"]
    assert result.text is not None and result.boundaries is not None
    assert data.text is not None and data.boundaries is not None
    for utt in data.utterances:
        frames = audio_info(data.wav[utt]).frames
        for factor in (0.9, 1.0, 1.1):
            new = perturbed_id(utt, factor)
            info = audio_info(result.wav[new])
            assert info.frames == round(frames / factor)
            assert result.text[new] == data.text[utt]
            ends = result.boundaries[new].ends
            np.testing.assert_allclose(
                ends, data.boundaries[utt].ends / factor, atol=1 / 16000
            )
            assert ends[-1] == pytest.approx(info.frames / 16000, abs=1e-9)
            assert result.boundaries[new].phones == data.boundaries[utt].phones


def test_speed_moves_the_pitch_with_it(make_data, tmp_path):
    data = make_data()
    result = perturb_speed(data, [1.25], tmp_path / "sp")
    for start, end in ((0.1, 0.2), (0.8, 0.9)):
        before = peak_frequency(data.wav["bert-3"], start, end)
        after = peak_frequency(result.wav["sp1.25-bert-3"], start, end)
        assert after == pytest.approx(1.25 * before, rel=0.03)


def test_finished_files_are_kept_and_stale_ones_made_again(make_data, tmp_path):
    data = make_data()
    result = perturb_speed(data, [0.9], tmp_path / "sp")
    paths = [Path(path) for path in result.wav.values()]
    paths[0].write_bytes(b"damaged")
    before = {path: path.stat().st_mtime_ns for path in paths[1:]}
    perturb_speed(data, [0.9], tmp_path / "sp")
    assert {path: path.stat().st_mtime_ns for path in paths[1:]} == before
    assert audio_info(paths[0]).frames > 0


@pytest.mark.parametrize("factors", [[], [0.9, 0.9], [0.0], [-1.0, 1.0]])
def test_bad_factors(make_data, tmp_path, factors):
    with pytest.raises(ValueError, match="speed factors"):
        perturb_speed(make_data(), factors, tmp_path)
