"""Targets, segments and audio stay together; a checkpoint becomes an upstream."""

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa import OFAUpstream
from espnet_ofa.bin import ssl_export, ssl_targets
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import read_table
from espnet_ofa.tasks.ssl import AlignedCrop, OFASSLTask

UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 8, "mels": 20},
    "dim": 8,
    "layers": 1,
    "heads": 2,
    "ff_dim": 8,
    "pos_kernel": 3,
    "pos_groups": 1,
}


def utterance(frames=50):
    samples = 400 + 320 * (frames - 1) + 17
    return {
        "speech": np.arange(samples, dtype=np.float32),
        "targets": np.arange(frames),
        "boundaries": np.array([7, 20, 33, frames]),
    }


@pytest.mark.parametrize("train", [True, False])
def test_crops_cut_all_three_alike(train):
    crop = AlignedCrop(crop_seconds=0.3, train=train)
    starts = set()
    for _ in range(50):
        data = crop("utt", utterance())
        first = int(data["targets"][0])
        starts.add(first)
        assert len(data["targets"]) == 15
        assert data["speech"][0] == 320 * first
        assert (len(data["speech"]) - 400) // 320 + 1 == 15
        whole = [b - first for b in (7, 20, 33, 50) if first < b < first + 15]
        assert data["boundaries"].tolist() == [*whole, 15]
    assert (len(starts) > 5) == train


def test_short_utterances_stay_whole():
    data = AlignedCrop(crop_seconds=10.0)("utt", utterance())
    assert len(data["targets"]) == 50 and data["boundaries"][-1] == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.arange(49)}, "utt3: 49 targets for audio of 50 frames"),
        ({"boundaries": np.array([7, 49])}, "utt3: segments end at frame 49"),
        ({"boundaries": np.array([7, 7, 50])}, "utt3: segment ends must increase"),
    ],
)
def test_what_does_not_fit_names_the_utterance(change, message):
    with pytest.raises(ValueError, match=message):
        AlignedCrop()("utt3", {**utterance(), **change})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight utterances of tones, as a data directory."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    wav = {}
    for i in range(8):
        tones = rng.integers(3, 30, 6) * 100
        t = np.arange(1600) / 16000
        wave = np.concatenate([np.sin(2 * np.pi * f * t) for f in tones])
        wave += 0.01 * rng.standard_normal(len(wave))
        path = folder / f"u{i}.flac"
        soundfile.write(path, 0.3 * wave, 16000)
        wav[f"u{i}"] = str(path)
    DataDir(wav=wav, utt2spk={u: u for u in wav}).write(folder / "train")
    return folder


def test_targets_and_segments_fit_the_audio(corpus):
    out = corpus / "targets"
    ssl_targets.main(
        ["--data_dirs", str(corpus / "train"), "--output_dir", str(out)]
        + ["--num_codes", "8", "--target_rate", "0.2"]
    )
    targets = read_table(out / "train/targets")
    ends = read_table(out / "train/boundaries")
    frames = (9600 - 400) // 320 + 1
    for utt in (f"u{i}" for i in range(8)):
        codes = [int(x) for x in targets[utt].split()]
        boundaries = np.array([int(x) for x in ends[utt].split()])
        assert len(codes) == frames and max(codes) < 8
        AlignedCrop()(
            utt,
            {
                "speech": np.zeros(9600, np.float32),
                "targets": np.array(codes),
                "boundaries": boundaries,
            },
        )
    facts = json.loads((out / "train/facts.json").read_text())
    assert facts["segment_ms"] == pytest.approx(100, rel=0.25)


def test_audio_at_another_rate_is_named(corpus, tmp_path):
    path = tmp_path / "slow.flac"
    soundfile.write(path, np.zeros(8000), 8000)
    DataDir(wav={"a": str(path)}, utt2spk={"a": "a"}).write(tmp_path / "d")
    with pytest.raises(ValueError, match=r"slow\.flac: expected 16 kHz mono"):
        ssl_targets.main(
            ["--data_dirs", str(tmp_path / "d"), "--output_dir", str(tmp_path / "o")]
        )


def test_training_then_export_gives_the_same_upstream(corpus, tmp_path):
    targets = corpus / "targets2"
    ssl_targets.main(
        ["--data_dirs", str(corpus / "train"), "--output_dir", str(targets)]
        + ["--num_codes", "8"]
    )
    exp = tmp_path / "exp"
    shapes = tmp_path / "shapes"
    shapes.write_text("".join(f"u{i} 9600\n" for i in range(8)))
    config = tmp_path / "train.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "upstream_conf": UPSTREAM,
                "num_codes": 8,
                "lam": 0.5,
                "best_model_criterion": [["valid", "loss", "min"]],
            }
        )
    )
    options = ["--config", str(config), "--output_dir", str(exp), "--max_epoch", "1"]
    options += ["--batch_type", "numel", "--batch_bins", "40000", "--num_workers", "0"]
    options += ["--optim", "adam", "--use_matplotlib", "false", "--ngpu", "0"]
    options += ["--use_tensorboard", "false", "--keep_nbest_models", "1"]
    for which in ("train", "valid"):
        for name, path, kind in (
            ("speech", corpus / "train/wav.scp", "sound"),
            ("targets", targets / "train/targets", "text_int"),
            ("boundaries", targets / "train/boundaries", "text_int"),
        ):
            options += [
                f"--{which}_data_path_and_name_and_type",
                f"{path},{name},{kind}",
            ]
        options += [f"--{which}_shape_file", str(shapes)]
    OFASSLTask.main(cmd=options)

    checkpoint = exp / "valid.loss.ave.pth"
    ssl_export.main(
        ["--train_config", str(exp / "config.yaml"), "--model_file", str(checkpoint)]
        + ["--data_dir", str(corpus / "train"), "--output_dir", str(tmp_path / "up")]
    )
    model, _ = OFASSLTask.build_model_from_file(exp / "config.yaml", checkpoint)
    wave = torch.randn(1, 8000)
    wanted = model.eval().upstream(wave, lam=0.7).hidden_states[-1]
    found = OFAUpstream.from_pretrained(tmp_path / "up")(wave, lam=0.7)
    assert torch.equal(found.hidden_states[-1], wanted)
    rate = json.loads((tmp_path / "up/rate.json").read_text())
    periods = [row["period_ms"] for row in rate["measured"]]
    assert periods[0] == 20.0 and periods == sorted(periods)
    assert rate["target_period_ms"] == pytest.approx(90)

    broken = torch.load(checkpoint, weights_only=True)
    del broken["upstream.project.weight"]
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="missing: project.weight"):
        ssl_export.load_from_espnet(exp / "config.yaml", tmp_path / "broken.pth")
