"""Audio that is not as an upstream takes it is named."""

import numpy as np
import pytest
import soundfile

from espnet_ofa.upstream.audio import check_table, count_samples, read_wave


def test_a_formatted_file_is_read(tmp_path):
    wave = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, 16000, "FLOAT")
    assert count_samples(path) == 1000
    found = read_wave(path)
    assert found.dtype == np.float32 and np.array_equal(found, wave)
    (tmp_path / "wav.scp").write_text(f"a {path}\n")
    check_table(tmp_path / "wav.scp")
    with pytest.raises(ValueError, match=r"a\.wav: expected 8 kHz, found 16000"):
        check_table(tmp_path / "wav.scp", 8000)


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.zeros(800), 8000, "expected 16 kHz mono, found 8000 Hz, 1 channels"),
        (np.zeros((800, 2)), 16000, "found 16000 Hz, 2 channels, 800 samples"),
        (np.zeros(0), 16000, "found 16000 Hz, 1 channels, 0 samples"),
    ],
)
def test_other_audio_is_named(tmp_path, wave, rate, message):
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, rate)
    for check in (count_samples, read_wave):
        with pytest.raises(ValueError, match=rf"a\.wav: .*{message}"):
            check(path)


def test_a_table_is_checked_for_its_rate_alone(tmp_path):
    scp, path = tmp_path / "wav.scp", tmp_path / "a.wav"
    soundfile.write(path, np.zeros((800, 2)), 16000)
    scp.write_text(f"a {path}\n")
    check_table(scp)  # ESPnet's own frontends take several channels
    with pytest.raises(ValueError, match=r"a\.wav: expected 8 kHz, found 16000 Hz"):
        check_table(scp, 8000)
    scp.write_text("a\n")
    with pytest.raises(ValueError, match=r"wav\.scp: a: expected .* the name alone"):
        check_table(scp)
    scp.write_text("")
    check_table(scp)


def test_what_is_no_audio_is_named(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(FileNotFoundError, match=r"a\.wav: no such audio file"):
        read_wave(path)
    path.write_text("not audio")
    with pytest.raises(ValueError, match=r"a\.wav: not readable as audio"):
        read_wave(path)
