"""ESPnet's trainer distils, from a running teacher and from a cache, and goes on from
what others have trained."""

import json

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa import OFAUpstream
from espnet_ofa.bin import ssl_export, ssl_targets, ssl_teacher
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.pretrain.cache import CacheFacts, CacheReader
from espnet_ofa.pretrain.teacher import load_teacher
from espnet_ofa.tasks.ssl import AlignedCrop, OFASSLTask
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.upstream.importers import load_any

TEACHER = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 8, "mels": 20},
    "compressor": "none",
    "dim": 8,
    "layers": 3,
    "heads": 2,
    "ff_dim": 8,
    "pos_kernel": 4,
    "pos_groups": 1,
}
STUDENT = {**TEACHER, "compressor": "cif", "layers": 1}
SAMPLES = {f"u{i}": 6000 + 800 * i for i in range(6)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six utterances, and a teacher."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    wav = {}
    for utt, samples in SAMPLES.items():
        wav[utt] = str(folder / f"{utt}.flac")
        soundfile.write(wav[utt], 0.1 * rng.standard_normal(samples), 16000)
    DataDir(wav=wav, utt2spk={u: u for u in wav}).write(folder / "train")
    lines = (f"{utt} {samples}\n" for utt, samples in SAMPLES.items())
    (folder / "shapes").write_text("".join(lines))
    torch.manual_seed(0)
    OFAUpstream(UpstreamConfig(**TEACHER)).save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def cache(corpus):
    """Folder of the teacher's layers 1 and 3."""
    fill_cache(corpus, corpus / "cache")
    return corpus / "cache/train"


def fill_cache(corpus, out, *options):
    ssl_teacher.main(
        ["--data_dirs", str(corpus / "train"), "--output_dir", str(out)]
        + ["--teacher", str(corpus / "teacher"), "--layers", "1", "3"]
        + ["--shard_mb", "0.002", "--batch_seconds", "1", *options]
    )


def shards(cache):
    """Shard of each utterance."""
    lines = (cache / "teacher.scp").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def config(corpus, **changes):
    """A configuration of training, as options."""
    values = {
        "model": "distill",
        "teacher": str(corpus / "teacher"),
        "model_conf": {"layers": [1, 3]},
        "upstream_conf": STUDENT,
        "lam": 0.5,
        "best_model_criterion": [["valid", "loss", "min"]],
        "optim_conf": {"lr": 0.003},
        "batch_type": "numel",
        "batch_bins": 40000,
        "num_workers": 0,
        "keep_nbest_models": 1,
        "max_epoch": 1,
        "use_matplotlib": False,
        "use_tensorboard": False,
        **changes,
    }
    path = corpus / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["--config", str(path), "--ngpu", "0"]


def data(corpus, **fields):
    """Options for training and validation on these fields beside speech."""
    items = [f"{corpus}/train/wav.scp,speech,sound"]
    kinds = {"teacher": "text", "targets": "text_int", "boundaries": "text_int"}
    items += [f"{path},{name},{kinds[name]}" for name, path in fields.items()]
    options = []
    for which in ("train", "valid"):
        for item in items:
            options += [f"--{which}_data_path_and_name_and_type", item]
        options += [f"--{which}_shape_file", str(corpus / "shapes")]
    return options


def train(corpus, exp, fields=None, changes=None):
    """Train; returns the statistics of validation in the last epoch."""
    options = [*config(corpus, **(changes or {})), *data(corpus, **(fields or {}))]
    OFASSLTask.main(cmd=[*options, "--output_dir", str(exp)])
    reporter = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]
    return reporter["stats"][max(reporter["stats"])]["valid"]


def test_a_cache_holds_what_the_teacher_says(corpus, cache):
    facts = CacheFacts.read(cache)
    assert facts.layers == (1, 3) and facts.dim == 8
    assert len(list(cache.glob("*.safetensors"))) > 2
    table = shards(cache)
    teacher, reader = load_teacher(corpus / "teacher"), CacheReader(facts)
    for utt, samples in SAMPLES.items():
        wave = torch.from_numpy(
            soundfile.read(corpus / f"{utt}.flac", dtype="float32")[0]
        )
        wanted, n = teacher(wave[None], torch.tensor([samples]), (1, 3))
        found = reader.read(table[utt], utt, 0, int(n))
        torch.testing.assert_close(found, wanted[0], atol=2e-3, rtol=1e-3)

    before = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    fill_cache(corpus, cache.parent)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(ValueError, match="another teacher .* or of other layers"):
        fill_cache(corpus, cache.parent, "--layers", "2")
    with pytest.raises(ValueError, match=r"layers from 0 .* to 3, found \[1, 12\]"):
        fill_cache(corpus, cache.parent, "--layers", "1", "12")


def test_crops_take_the_teacher_along(corpus, cache):
    facts = CacheFacts.read(cache)
    shard = shards(cache)["u5"]
    n = (SAMPLES["u5"] - 400) // 320 + 1
    whole = CacheReader(facts).read(shard, "u5", 0, n)
    wave = np.arange(SAMPLES["u5"], dtype=np.float32)
    crop = AlignedCrop(0.2, True, CacheReader(facts))
    starts = set()
    for _ in range(20):
        found = crop("u5", {"speech": wave, "teacher": shard})
        first = int(found["speech"][0]) // 320
        starts.add(first)
        assert np.array_equal(found["teacher"], whole[first : first + 10].numpy())
    assert len(starts) > 3
    with pytest.raises(ValueError, match="u5: 31 targets for audio of 30 frames"):
        crop("u5", {"speech": wave[:-320], "teacher": shard})


def test_cached_training_equals_training_with_the_teacher(corpus, cache, tmp_path):
    live = train(corpus, tmp_path / "live")
    cached = train(corpus, tmp_path / "cached", {"teacher": cache / "teacher.scp"})
    for name in ("loss_distill", "cosine_1", "cosine_3", "period_ms"):
        assert cached[name] == pytest.approx(live[name], rel=1e-3), name

    exp = tmp_path / "cached"
    ssl_export.main(
        ["--train_config", str(exp / "config.yaml"), "--lams", "0", "1"]
        + ["--model_file", str(exp / "valid.loss.ave.pth")]
        + ["--data_dir", str(corpus / "train"), "--output_dir", str(exp / "upstream")]
    )
    upstream = OFAUpstream.from_pretrained(exp / "upstream")
    teacher = OFAUpstream.from_pretrained(corpus / "teacher")
    distance = upstream.project.weight - teacher.project.weight
    assert 0 < distance.abs().max() < 0.1  # it started there
    rates = json.loads((exp / "upstream/rate.json").read_text())["measured"]
    assert rates[0]["period_ms"] == 20 and rates[1]["period_ms"] > 60

    # Segments and codes may come along.
    out = tmp_path / "codes"
    ssl_targets.main(
        ["--data_dirs", str(corpus / "train"), "--output_dir", str(out)]
        + ["--num_codes", "4", "--upstream", str(corpus / "teacher"), "--layer", "2"]
    )
    names = ("targets", "boundaries")
    stats = train(corpus, tmp_path / "seg", {x: out / "train" / x for x in names})
    assert "loss_segment" in stats


def test_what_does_not_go_together_is_refused(corpus, cache, tmp_path):
    def build(fields=None, **changes):
        options = [*config(corpus, **changes), *data(corpus, **(fields or {}))]
        args = OFASSLTask.get_parser().parse_args(options)
        model = OFASSLTask.build_model(args)
        return model, OFASSLTask.build_preprocess_fn(args, train=True)

    with pytest.raises(ValueError, match="model: distill needs --teacher"):
        build(teacher=None)
    with pytest.raises(
        ValueError, match=r"teacher: expected layers .* found \[4, 8, 12"
    ):
        build(model_conf={})
    with pytest.raises(ValueError, match="model: masked needs targets"):
        build(model="masked", model_conf={})
    with pytest.raises(
        ValueError, match="cannot start from .*teacher: .*project.weight"
    ):
        build(upstream_conf={**STUDENT, "dim": 4})
    build(upstream_conf={**STUDENT, "dim": 4}, teacher_conf={"init": "none"})

    fields = {"teacher": cache / "teacher.scp"}
    table = shards(cache)
    one = {"speech": np.zeros(SAMPLES["u1"], np.float32), "teacher": table["u1"]}
    assert build(fields)[1]("u1", dict(one))["teacher"].shape == (21, 2, 8)
    with pytest.raises(ValueError, match=r"layers: expected \(1, 2\), found \(1, 3\)"):
        build(fields, model_conf={"layers": [1, 2]})[1]("u1", dict(one))
    with pytest.raises(ValueError, match="fingerprint"):
        build(fields, teacher_conf={"dtype": "bfloat16"})[1]("u1", dict(one))
    model, _ = build(teacher_conf={"dtype": "bfloat16"})
    wave = torch.randn(1, 8000)
    assert model.targets(wave, torch.tensor([8000])).dtype == torch.bfloat16
    start = OFAUpstream.from_pretrained(corpus / "teacher")  # not rounded
    assert torch.equal(model.upstream.project.weight, start.project.weight)


def test_a_cache_takes_the_hints_of_training(corpus, tmp_path):
    with pytest.raises(ValueError, match="expected no hints, found heads"):
        fill_cache(corpus, tmp_path / "other", "--teacher_conf", "heads=4")
    fill_cache(corpus, tmp_path / "low", "--teacher_conf", "dtype=bfloat16")
    fill_cache(corpus, tmp_path / "high", "--teacher_conf", "init=none")
    low, high = (CacheFacts.read(tmp_path / x / "train") for x in ("low", "high"))
    assert low.fingerprint != high.fingerprint


def test_audio_at_another_rate_is_not_cached(corpus, tmp_path):
    path = tmp_path / "slow.flac"
    soundfile.write(path, np.zeros(8000), 8000)
    DataDir(wav={"a": str(path)}, utt2spk={"a": "a"}).write(tmp_path / "d")
    with pytest.raises(
        ValueError, match=r"slow\.flac: expected 16 kHz mono, found 8000"
    ):
        ssl_teacher.main(
            ["--data_dirs", str(tmp_path / "d"), "--output_dir", str(tmp_path / "o")]
            + ["--teacher", str(corpus / "teacher"), "--layers", "1"]
        )


@pytest.fixture(params=["ours", "hubert", "wav2vec2"])
def encoder(request, corpus, tmp_path):
    """Folder of a 20 ms encoder of three layers: ours, or in Hugging Face's layout."""
    if request.param == "ours":
        return corpus / "teacher"
    transformers = pytest.importorskip("transformers")
    name = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2"}[request.param]
    conf = {
        "conv_dim": [8] * 7,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_conv_pos_embeddings": 6,
        "num_conv_pos_embedding_groups": 2,
    }
    model = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(**conf)
    )
    model.save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_continued_training_makes_a_20_ms_model_once_for_all(corpus, encoder, tmp_path):
    out = tmp_path / "codes"
    ssl_targets.main(
        ["--data_dirs", str(corpus / "train"), "--output_dir", str(out)]
        + ["--num_codes", "4", "--upstream", str(encoder), "--layer", "2"]
    )
    fields = {"targets": out / "train/targets"}
    changes = {
        "model": "masked",
        "model_conf": {},
        "num_codes": 4,
        "upstream": str(encoder),
        "upstream_conf": {"compressor": "cif", "dropout": 0.0},
        "optim_conf": {"lr": 0.0},  # so that weights can be compared
        "init": "xavier_uniform",
    }
    exp = tmp_path / "exp"
    train(corpus, exp, fields, changes)
    start = load_any(encoder)
    checkpoint = exp / "valid.loss.ave.pth"
    upstream = ssl_export.load_from_espnet(exp / "config.yaml", checkpoint)
    assert upstream.config.compressor == "cif" and upstream.config.dropout == 0.0
    wave = torch.randn(1, 8000)
    wanted = start(wave).hidden_states[-1]
    torch.testing.assert_close(upstream(wave, lam=0.0).hidden_states[-1], wanted)
    assert float(upstream(wave, lam=1.0).period_ms) > 60

    # config.yaml builds the model without the encoder that it came from.
    conf = yaml.safe_load((exp / "config.yaml").read_text())
    assert conf["upstream"] is None and conf["upstream_conf"]["layers"] == 3
    model, _ = OFASSLTask.build_model_from_file(exp / "config.yaml", checkpoint)
    assert torch.equal(model.upstream.project.weight, start.project.weight)
