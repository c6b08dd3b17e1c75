"""Targets, segments and audio stay together; a checkpoint becomes an upstream."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa import OFAUpstream
from espnet_ofa.asr.frontend import OFAFrontend
from espnet_ofa.bin import ssl_export, ssl_targets
from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import read_table
from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.tables import ssl_section
from espnet_ofa.subsampling import LamSampler
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


def known(corpus, folder, ends):
    """Make targets of a directory that knows its segments; returns their ends."""
    data = DataDir.read(corpus / "train")
    boundaries = {u: Segmentation(np.array(ends)) for u in data.wav}
    data = replace(data, boundaries=boundaries if ends else None)
    data.write(folder / "known")
    ssl_targets.main(
        ["--data_dirs", str(folder / "known"), "--output_dir", str(folder / "out")]
        + ["--num_codes", "8", "--segments", "data"]
    )
    table = read_table(folder / "out/known/boundaries")
    assert table.keys() == data.wav.keys()
    (line,) = set(table.values())
    facts = json.loads((folder / "out/known/facts.json").read_text())
    return [int(x) for x in line.split()], facts["segment_ms"]


def test_known_segments_are_taken_over_in_frames(corpus, tmp_path):
    # 0.6 s are 29 whole frames: the last segment ends with them, and one that is
    # shorter than a frame goes to its neighbour.
    ends, segment_ms = known(corpus, tmp_path, [0.1, 0.11, 0.2, 0.33, 0.6])
    assert ends == [5, 6, 10, 16, 29]
    assert segment_ms == pytest.approx(20 * 29 / 5)
    ends, segment_ms = known(corpus, tmp_path, [0.004, 0.1, 0.104, 0.57, 0.575])
    assert ends == [5, 28, 29]
    assert segment_ms == pytest.approx(20 * 29 / 3)


def test_known_segments_that_do_not_fit_are_named(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"no segments for u0 in .*known/boundaries"):
        known(corpus, tmp_path, [])
    with pytest.raises(ValueError, match="u0: segments end at frame 45, the audio has"):
        known(corpus, tmp_path, [0.1, 0.9])


def test_audio_at_another_rate_is_named(corpus, tmp_path):
    path = tmp_path / "slow.flac"
    soundfile.write(path, np.zeros(8000), 8000)
    DataDir(wav={"a": str(path)}, utt2spk={"a": "a"}).write(tmp_path / "d")
    with pytest.raises(ValueError, match=r"slow\.flac: expected 16 kHz mono"):
        ssl_targets.main(
            ["--data_dirs", str(tmp_path / "d"), "--output_dir", str(tmp_path / "o")]
        )


@pytest.fixture
def targets(corpus, tmp_path):
    """Folder of eight codes and segments."""
    options = ["--num_codes", "8", "--output_dir", str(tmp_path / "targets")]
    ssl_targets.main(["--data_dirs", str(corpus / "train"), *options])
    return tmp_path / "targets/train"


def train(corpus, targets, exp, *options, epochs=1, segments=False):
    """Train a tiny model in ``exp``; again means to go on."""
    shapes = corpus / "shapes"
    shapes.write_text("".join(f"u{i} 9600\n" for i in range(8)))
    config = corpus / "train.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "upstream_conf": UPSTREAM,
                "num_codes": 8,
                "lam": 0.5,
                "model_conf": {"mask_span_ms": 100, "mask_share": 0.4},
                "best_model_criterion": [["valid", "loss", "min"]],
                "optim": "adam",
                "optim_conf": {"lr": 0.003},
                "batch_type": "numel",
                "batch_bins": 40000,
                "num_workers": 0,
                "keep_nbest_models": 1,
                "use_matplotlib": False,
                "use_tensorboard": False,
            }
        )
    )
    options = [*options, "--config", str(config), "--output_dir", str(exp)]
    options += ["--max_epoch", str(epochs), "--ngpu", "0", "--resume", "true"]
    data = [(corpus / "train/wav.scp", "speech", "sound")]
    names = ("targets", "boundaries") if segments else ("targets",)
    data += [(targets / name, name, "text_int") for name in names]
    for which in ("train", "valid"):
        for item in data:
            options.append(f"--{which}_data_path_and_name_and_type")
            options.append(",".join(map(str, item)))
        options += [f"--{which}_shape_file", str(shapes)]
    OFASSLTask.main(cmd=options)


def export(data_dir, exp, out, *options):
    """Export what :func:`train` made; returns its rate."""
    ssl_export.main(
        ["--train_config", str(exp / "config.yaml"), "--output_dir", str(out)]
        + ["--model_file", str(exp / "valid.loss.ave.pth")]
        + ["--data_dir", str(data_dir), *options]
    )
    return json.loads((out / "rate.json").read_text())


def test_training_then_export_gives_the_same_upstream(corpus, targets, tmp_path):
    exp = tmp_path / "exp"
    train(corpus, targets, exp)
    rate = export(corpus / "train", exp, tmp_path / "up")
    assert rate["model_sha256"] == model_checksum(
        OFAUpstream.from_pretrained(tmp_path / "up")
    )
    checkpoint = exp / "valid.loss.ave.pth"
    model, _ = OFASSLTask.build_model_from_file(exp / "config.yaml", checkpoint)
    wave = torch.randn(1, 8000)
    wanted = model.eval().upstream(wave, lam=0.7).hidden_states[-1]
    found = OFAUpstream.from_pretrained(tmp_path / "up")(wave, lam=0.7)
    assert torch.equal(found.hidden_states[-1], wanted)

    periods = [row["period_ms"] for row in rate["measured"]]
    assert periods[0] == 20.0 and periods == sorted(periods)
    assert rate["target_period_ms"] == pytest.approx(90)
    assert rate["target_from"] == "target_rate of the config"
    shape = OFAUpstream.from_pretrained(tmp_path / "up").config
    assert shape.compressor_conf["target_rate"] == pytest.approx(20 / 90)
    ceilings = [row["ceiling"] for row in rate["measured"]]
    assert ceilings[0] == 1.0 and 1 / 8 < ceilings[-1] < 1.0

    # Few utterances are of all the data: the second one is not read.
    some = tmp_path / "some"
    shutil.copytree(corpus / "train", some)
    lines = (some / "wav.scp").read_text().splitlines()
    lines[1] = f"{lines[1].split()[0]} missing.wav"
    (some / "wav.scp").write_text("\n".join(lines) + "\n")
    assert len(lines) >= 4
    few = export(some, exp, tmp_path / "few", "--max_utts", "2")
    assert few["utterances"] == 2

    broken = torch.load(checkpoint, weights_only=True)
    del broken["upstream.project.weight"]
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="missing: project.weight"):
        ssl_export.load_from_espnet(exp / "config.yaml", tmp_path / "broken.pth")

    # Data that validation had no targets for have a rate and no ceiling.
    data = DataDir.read(corpus / "train")
    wav = {f"x{utt}": path for utt, path in data.wav.items()}
    DataDir(wav=wav, utt2spk={u: u for u in wav}).write(tmp_path / "other")
    rate = export(tmp_path / "other", exp, tmp_path / "up")
    assert [row["period_ms"] for row in rate["measured"]] == periods
    assert not any("ceiling" in row for row in rate["measured"])


@pytest.mark.parametrize("conf", [{}, {"target_rate": 0.4}])
def test_periods_are_drawn_up_to_that_of_lambda_one(conf):
    args = OFASSLTask.get_parser().parse_args(["--output_dir", "x", "--lam", "0.5"])
    args.upstream_conf = {**UPSTREAM, "compressor_conf": conf}
    policy = OFASSLTask.build_model(args).upstream.policy
    rate = conf.get("target_rate", 2 / 9)
    wanted = LamSampler("uniform_period", args.seed, mean_alpha=rate)
    assert [policy() for _ in range(3)] == [wanted() for _ in range(3)]


def test_the_rate_is_judged_by_the_segments_of_training(targets):
    conf = {
        "upstream_conf": {"compressor_conf": {"target_rate": 0.25}},
        "train_data_path_and_name_and_type": [["wav.scp", "speech", "sound"]],
    }
    assert ssl_export.target_period(conf) == (80.0, "target_rate of the config")
    segments = targets / "boundaries"
    conf["train_data_path_and_name_and_type"] += [[segments, "boundaries", "text_int"]]
    source = f"segments of training, {segments}"
    facts = targets / "facts.json"
    segment_ms = json.loads(facts.read_text())["segment_ms"]
    assert ssl_export.target_period(conf) == (segment_ms, source)
    conf["model_conf"] = {"segment_weight": 0.0, "frame_weight": 0.0}  # nobody guides
    assert ssl_export.target_period(conf) == (80.0, "target_rate of the config")
    conf["model_conf"]["frame_weight"] = 0.5
    assert ssl_export.target_period(conf) == (segment_ms, source)
    facts.rename(targets / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"facts\.json: not found"):
        ssl_export.target_period(conf)


@pytest.mark.parametrize(("segment_ms", "is_off"), [(90.0, False), (60.0, True)])
def test_a_rate_off_its_target_is_told(
    corpus, targets, tmp_path, caplog, segment_ms, is_off
):
    exp = tmp_path / "exp"
    train(corpus, targets, exp, segments=True)
    (targets / "facts.json").write_text(json.dumps({"segment_ms": segment_ms}))
    rate = export(corpus / "train", exp, tmp_path / "up")  # alpha starts at 90 ms
    assert rate["target_period_ms"] == segment_ms
    # Tasks hold the rate of the segments, not the one that training started from.
    task = OFAFrontend(str(tmp_path / "up"), lam=1.0).train()
    for _ in range(60):
        task(torch.randn(4, 48000), torch.full((4,), 48000))
    assert float(task.stats()["period_ms"]) == pytest.approx(segment_ms, rel=0.1)
    assert rate["target_from"].startswith("segments of training")
    assert ("% off the 60.0 ms of the segments" in caplog.text) == is_off
    assert ("WARNING" in ssl_section(rate)) == is_off


def test_segments_of_one_frame_are_refused(corpus, targets, tmp_path):
    exp = tmp_path / "exp"
    train(corpus, targets, exp, segments=True)
    (targets / "facts.json").write_text(json.dumps({"segment_ms": 20.0}))
    with pytest.raises(ValueError, match="above the 20 ms of a frame, found 20 ms"):
        export(corpus / "train", exp, tmp_path / "up")
    assert not (tmp_path / "up").exists()


class Killed(Exception):
    """What ends a training in the middle."""


def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    corpus, targets, tmp_path, monkeypatch
):
    def go_on(exp):
        crop = ["--crop_seconds", "0.4"]
        train(corpus, targets, exp, *crop, epochs=3, segments=True)
        return torch.load(exp / "latest.pth", weights_only=True)

    whole = go_on(tmp_path / "whole")
    per_epoch = int(whole["upstream.policy.draws"]) // 3
    assert per_epoch > 1
    forward, steps = MaskedPredictionModel.forward, 0

    def dies_in_the_second_epoch(self, *args, **kwargs):
        nonlocal steps
        steps += self.training
        if steps == per_epoch + 2:
            raise Killed
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(MaskedPredictionModel, "forward", dies_in_the_second_epoch)
    with pytest.raises(Killed):
        go_on(tmp_path / "cut")
    monkeypatch.setattr(MaskedPredictionModel, "forward", forward)
    left = torch.load(tmp_path / "cut/latest.pth", weights_only=True)
    assert left["upstream.policy.draws"] == per_epoch

    resumed = go_on(tmp_path / "cut")
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name
