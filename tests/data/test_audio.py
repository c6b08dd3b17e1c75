"""Audio files: resampling, averaging, and every kind of damaged file."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa.data.audio import (
    AudioError,
    audio_info,
    check_audio,
    read_mono,
    resample,
    resampled_length,
    write_audio,
)


def tone(frames: int, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(frames) / rate)).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    frames=st.integers(1, 4000),
    rates=st.sampled_from(
        [(22050, 16000), (8000, 16000), (14400, 16000), (17600, 16000)]
    ),
)
def test_resampled_length_is_exact(frames, rates):
    wave = resample(tone(frames, rates[0]), *rates)
    assert len(wave) == resampled_length(frames, *rates)


def test_resampling_keeps_the_tone():
    wave = resample(tone(44100, 44100), 44100, 16000)
    np.testing.assert_allclose(wave[500:-500], tone(16000, 16000)[500:-500], atol=2e-3)


def test_channels_are_averaged(tmp_path):
    left = tone(800, 16000)
    sf.write(tmp_path / "x.wav", np.stack([left, 0 * left], axis=1), 16000)
    wave, rate = read_mono(tmp_path / "x.wav")
    assert rate == 16000
    np.testing.assert_allclose(wave, left / 2, atol=1e-4)


def test_written_audio_is_clipped_and_whole(tmp_path):
    write_audio(
        tmp_path / "new" / "x.flac", np.array([0.0, 3.0, -3.0], np.float32), 16000
    )
    wave, _ = read_mono(tmp_path / "new" / "x.flac")
    np.testing.assert_allclose(wave, [0.0, 1.0, -1.0], atol=1e-4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.flac"]


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg", "mp3", "sph"])
def test_truncated_files_are_found(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    container = {"sph": "NIST", "ogg": "OGG", "mp3": "MP3"}.get(suffix)
    subtype = {"sph": "PCM_16", "ogg": "OPUS"}.get(suffix)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
    sf.write(path, noise, 16000, subtype, format=container)
    assert check_audio(path).frames >= 48000
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(AudioError, match=rf"x\.{suffix}.*(truncated|readable)"):
            check_audio(path)


def test_ogg_cut_at_a_page_is_found(tmp_path):
    path = tmp_path / "x.ogg"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 480000).astype(np.float32)
    sf.write(path, noise, 16000, "OPUS", format="OGG")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"OggS")])
    with pytest.raises(AudioError, match="end-of-stream page is missing"):
        audio_info(path)


def test_streamed_wav_of_unknown_size_is_no_error(tmp_path):
    path = tmp_path / "x.wav"
    sf.write(path, tone(800, 16000), 16000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert audio_info(path).frames == 800


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "zero bytes"), (b"hello" * 99, "not readable")],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "x.flac"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=rf"x\.flac: {message}"):
        audio_info(path)


def test_file_without_samples(tmp_path):
    sf.write(tmp_path / "x.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(AudioError, match="no samples"):
        audio_info(tmp_path / "x.wav")
