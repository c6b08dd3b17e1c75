"""Formatting audio and dropping utterances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from espnet_ofa.data.audio import audio_info, read_mono
from espnet_ofa.data.filter import filter_utterances
from espnet_ofa.data.format import format_audio, parse_sample_rate
from espnet_ofa.data.table import DataError


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [("ogg", 16000, 1), ("wav", 44100, 2), ("mp3", 22050, 1), ("flac", 8000, 1)],
)
def test_any_input_becomes_16_khz_mono(make_data, tmp_path, suffix, rate, channels):
    data = make_data(suffix, rate, channels)
    result = format_audio(data, tmp_path / "out", nj=2)
    assert result.num_samples is not None
    for index, utt in enumerate(result.utterances):
        info = audio_info(result.wav[utt])
        assert (info.sample_rate, info.channels, info.format) == (16000, 1, "flac")
        assert result.num_samples[utt] == info.frames
        assert info.frames == pytest.approx(8000 * (index + 1), abs=1)
        wave, _ = read_mono(result.wav[utt])
        middle = wave[len(wave) // 4 : 3 * len(wave) // 4]
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_right_audio_is_referenced_not_copied(make_data, tmp_path):
    data = make_data()
    result = format_audio(data, tmp_path / "out")
    assert result.wav == {utt: str(Path(p).resolve()) for utt, p in data.wav.items()}
    assert not (tmp_path / "out").exists()
    assert result.num_samples == {
        utt: 8000 * (index + 1) for index, utt in enumerate(data.utterances)
    }


def test_finished_files_are_kept_until_the_source_changes(make_data, tmp_path):
    data = make_data("wav")
    result = format_audio(data, tmp_path / "out")
    paths = {utt: Path(path) for utt, path in result.wav.items()}
    first = {utt: path.stat().st_mtime_ns for utt, path in paths.items()}
    format_audio(data, tmp_path / "out")
    assert {utt: path.stat().st_mtime_ns for utt, path in paths.items()} == first
    Path(data.wav["anna-0"]).touch()
    format_audio(data, tmp_path / "out")
    again = {
        utt for utt, path in paths.items() if path.stat().st_mtime_ns != first[utt]
    }
    assert again == {"anna-0"}


def test_every_bad_file_is_named(make_data, tmp_path):
    data = make_data("wav", 8000)
    Path(data.wav["anna-0"]).unlink()
    Path(data.wav["bert-2"]).write_bytes(b"no audio")
    with pytest.raises(DataError) as caught:
        format_audio(data, tmp_path / "out", nj=2)
    assert len(caught.value.problems) == 2
    assert "anna-0: " in str(caught.value) and "bert-2: " in str(caught.value)


def test_segments_of_other_audio_are_an_error(make_data, tmp_path):
    """As when perturbed audio meets the segments of the original."""
    data = make_data()
    assert data.boundaries is not None
    wrong = {**data.boundaries, "bert-2": data.boundaries["bert-2"].scaled(1 / 0.9)}
    with pytest.raises(DataError, match="bert-2 ends at 1.667 s, its audio at 1.500"):
        format_audio(replace(data, boundaries=wrong), tmp_path / "out")


@pytest.mark.parametrize(("text", "rate"), [("16k", 16000), ("8000", 8000)])
def test_sample_rates(text, rate):
    assert parse_sample_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "-8k", "0", ""])
def test_bad_sample_rates(text):
    with pytest.raises(ValueError, match="expected hertz"):
        parse_sample_rate(text)


def test_filter_drops_and_says_why(make_data, tmp_path):
    data = format_audio(make_data(), tmp_path / "out")
    assert data.text is not None
    data = replace(data, text={**data.text, "anna-1": " "})
    kept, report = filter_utterances(data, min_seconds=0.6, max_seconds=1.75)
    assert kept.utterances == ["bert-2"]
    assert kept.boundaries is not None and set(kept.boundaries) == {"bert-2"}
    assert {utt: why.split(":")[0] for utt, why in report.dropped.items()} == {
        "anna-0": "too short",
        "anna-1": "empty text",
        "bert-3": "too long",
    }
    assert report.hours == pytest.approx(1.5 / 3600)
    for piece in ("kept 1 of 4", "1 too short", "1 too long", "1 empty text"):
        assert piece in report.summary()


def test_filter_keeps_its_limits(make_data, tmp_path):
    data = format_audio(make_data(), tmp_path / "out")
    kept, report = filter_utterances(data, min_seconds=0.5, max_seconds=2.0)
    assert len(kept) == 4 and not report.dropped


def test_filter_errors(make_data, tmp_path):
    data = make_data()
    with pytest.raises(ValueError, match="format the audio"):
        filter_utterances(data)
    data = format_audio(data, tmp_path / "out")
    with pytest.raises(ValueError, match="all 4 utterances would be dropped"):
        filter_utterances(data, min_seconds=5.0)
    with pytest.raises(ValueError, match="min < max"):
        filter_utterances(data, min_seconds=5.0, max_seconds=1.0)
