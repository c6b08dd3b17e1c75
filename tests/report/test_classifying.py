"""Classifying: what is measured, and what is not classified again."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")

from espnet_ofa.bin import cls_inference  # noqa: E402
from espnet_ofa.report.classifying import Guess, classify_test_set  # noqa: E402
from espnet_ofa.report.meter import EncoderMeter  # noqa: E402
from espnet_ofa.report.profile import UpstreamEncode  # noqa: E402
from espnet_ofa.report.stats import DecodeStats, load_stats  # noqa: E402
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig  # noqa: E402

SECONDS = {"u1": 0.9, "u2": 0.4, "u3": 0.7, "u4": 0.5}
LATER = 4e9  # a time after any test


@pytest.fixture
def data(tmp_path):
    """A test set; its audio is older than what any test makes."""
    folder = tmp_path / "data"
    folder.mkdir()
    for key, seconds in SECONDS.items():
        wave = 0.1 * torch.randn(int(16000 * seconds))
        soundfile.write(folder / f"{key}.wav", wave.numpy(), 16000)
    scp = "".join(f"{key} {folder}/{key}.wav\n" for key in SECONDS)
    (folder / "wav.scp").write_text(scp)
    (folder / "text").write_text("".join(f"{key} yes\n" for key in SECONDS))
    return folder


@pytest.fixture
def classifier():
    """Gives every utterance the same class."""
    torch.manual_seed(0)
    config = UpstreamConfig(
        extractor="logmel",
        extractor_conf={"dim": 8},
        dim=8,
        layers=1,
        heads=2,
        ff_dim=16,
        pos_kernel=4,
        pos_groups=2,
    )
    model = UpstreamEncode(OFAUpstream(config).eval())

    @torch.no_grad()
    def classify(waves):
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        model.encode(padded, torch.tensor([len(wave) for wave in waves]))
        return [Guess("yes", 0.5) for _ in waves]

    return SimpleNamespace(
        model=model,
        device=torch.device("cpu"),
        meter=EncoderMeter(model),
        classify=classify,
        parameters={"upstream": 1},
    )


@pytest.mark.parametrize("size", [1, 3])
def test_seconds_are_of_what_was_classified(classifier, data, clock, monkeypatch, size):
    """The encoder takes as long as the audio, the rest twice as long again."""
    encode, classify = UpstreamEncode.encode, classifier.classify

    def slow_encode(self, speech, lengths):
        clock.time += int(lengths.sum()) / 16000
        return encode(self, speech, lengths)

    def slow_classify(waves):
        clock.time += 2 * sum(map(len, waves)) / 16000
        return classify(waves)

    monkeypatch.setattr(UpstreamEncode, "encode", slow_encode)
    classifier.classify = slow_classify
    classifier.model.lam = 0.0
    stats = DecodeStats("test")
    wavs = {key: str(data / f"{key}.wav") for key in SECONDS}
    found = classify_test_set(classifier, wavs, stats, size)
    assert list(found) == list(SECONDS) and stats.utterances == 4
    assert stats.audio_seconds == stats.macs_seconds == pytest.approx(2.5)
    assert stats.encoder_seconds == pytest.approx(2.5)  # warm-up does not count
    assert stats.decode_seconds == pytest.approx(5.0)
    # (samples - 400) // 320 + 1 of 0.9, 0.4, 0.7 and 0.5 s
    assert stats.frames == stats.units == 44 + 19 + 34 + 24


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"batch_size": 2}, [0.0, 1.0]),
        ({"model": "other.pth"}, [0.0, 1.0]),
        ({"device": "an other one"}, [0.0, 1.0]),
        ({"lams": [0.0, 0.5]}, [0.5]),
        ({"newer": "config.yaml"}, [0.0, 1.0]),
        ({"newer": "model.pth"}, [0.0, 1.0]),
        ({"newer": "data/wav.scp"}, [0.0, 1.0]),
        ({"lost": "lam1/test/stats.json"}, [1.0]),
        ({"lost": "lam1/test/text"}, [1.0]),
        ({"weights": 0.5}, [0.0, 1.0]),
        ({"utterances": 3}, [0.0, 1.0]),
    ],
)
def test_what_is_there_is_classified_again_where_something_changed(
    classifier, data, tmp_path, monkeypatch, change, again
):
    made = []

    def classify(classifier, wavs, stats: Any, batch_size):
        made.append(stats.lam)
        return {key: Guess("yes", 0.5) for key in wavs}

    monkeypatch.setattr(cls_inference, "Classifier", lambda *_: classifier)
    monkeypatch.setattr(cls_inference, "classify_test_set", classify)

    def run(model="model.pth", lams=(0.0, 1.0), batch_size=1, device="this one"):
        monkeypatch.setattr(cls_inference, "cpu_name", lambda: device)
        paths = [str(tmp_path / name) for name in ("config.yaml", model)]
        out = tmp_path / "out"
        system = cls_inference.System(*paths, out, [*lams])
        test_sets = cls_inference.find_test_sets([f"test:{data}"])
        cls_inference.run_system(system, test_sets, batch_size, "cpu")
        return [load_stats(out / f"lam{lam:g}" / "test").setup for lam in lams]

    for name in ("config.yaml", "model.pth", "other.pth"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (0, 0))
    os.utime(data / "wav.scp", (0, 0))
    run()
    assert made == [0.0, 1.0]
    made.clear()
    if newer := change.pop("newer", None):
        os.utime(tmp_path / newer, (LATER, LATER))
    if lost := change.pop("lost", None):
        (tmp_path / "out" / lost).unlink()
    if weights := change.pop("weights", None):
        classifier.model.upstream.project.weight.data.fill_(weights)
    if count := change.pop("utterances", None):
        lines = (data / "wav.scp").read_text().splitlines(keepends=True)
        (data / "wav.scp").write_text("".join(lines[:count]))
        os.utime(data / "wav.scp", (0, 0))
    setups = run(**change)
    assert made == again
    assert all(setup["batch_size"] == change.get("batch_size", 1) for setup in setups)
