"""Every classification configuration is accepted by ESPnet and builds its model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa.report.stats import load_stats
from espnet_ofa.tasks.ssl import OFASSLTask

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "egs2/TEMPLATE/ofa1"
FILES = sorted({p.resolve() for p in ROOT.glob("egs2/*/*1/conf/**/train_cls*.yaml")})
SHAPE = TEMPLATE / "conf/train_ssl.yaml"


@pytest.fixture(scope="module")
def parse(tmp_path_factory):
    """Options of training, as cls.sh gives them."""
    pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
    from espnet_ofa.tasks.cls import OFACLSTask

    folder = tmp_path_factory.mktemp("cls")
    upstream = yaml.safe_load(SHAPE.read_text())["upstream_conf"]
    (folder / "upstream.yaml").write_text(yaml.safe_dump(upstream))
    (folder / "classes.txt").write_text("a\nb\nc\n<unk>\n")

    def parse_options(config, *more, upstream=folder / "upstream.yaml"):
        options = ["--config", str(config), "--token_list", f"{folder}/classes.txt"]
        options += ["--frontend_conf", f"upstream={upstream}", *more]
        options += ["--frontend_conf", "fs=16k", "--init_param", "first.pth"]
        return OFACLSTask.get_parser().parse_args(options)

    return parse_options


@pytest.fixture(scope="module")
def build(parse):
    from espnet_ofa.tasks.cls import OFACLSTask

    return lambda *args, **kwargs: OFACLSTask.build_model(parse(*args, **kwargs))


def test_there_are_configs():
    assert len(FILES) >= 5


@pytest.mark.parametrize("config", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_config(config, build):
    model = build(config)
    model.train()
    loss, stats, _ = model(
        torch.randn(2, 16000), torch.tensor([16000, 12000]),
        torch.tensor([[0], [2]]), torch.tensor([1, 1]),
    )  # fmt: skip
    loss.backward()
    assert torch.isfinite(loss) and "acc" in stats
    assert ("loss_price" in stats) == ("price" in config.name)
    raw = [p for n, p in model.named_parameters() if n.endswith("learnable.raw")]
    assert len(raw) == ("adaptive" in config.name)
    assert all(p.grad is not None and p.grad.abs() > 0 for p in raw)
    frozen = not any(p.requires_grad for p in model.frontend.upstream.parameters())
    assert frozen == ("frozen" in config.name)
    assert (model.frontend.layer_weights is not None) == frozen
    assert model.decoder.pooling.weights == "duration"


@pytest.mark.parametrize("config", [p for p in FILES if "adaptive" in p.name], ids=str)
def test_adaptive_starts_from_the_first_model(config, build):
    """ESPnet's --init_param leaves what does not fit random, without an error."""
    first, adaptive = (
        {n: tuple(p.shape) for n, p in build(path).named_parameters()}
        for path in (config.with_name("train_cls.yaml"), config)
    )
    assert set(first.items()) <= set(adaptive.items())


def settings(system):
    """What --system makes of the options of cls.sh."""
    names = ("ssl_args", "cls_args", "adaptive_args", "adaptive_configs", "cls_exp")
    names += ("inference_squeezes",)
    script = '. "$@"; for name in ${names}; do echo "${name}=${!name}"; done'
    options = ["--system", system, "--cls_args", "--seed 1", "--stage", "99"]
    options += ["--ngpu", "0", "--nj", "1", "--num_threads", "1"]
    done = subprocess.run(
        ["bash", "-euc", script, "-", str(TEMPLATE / "cls.sh"), *options],
        env={**os.environ, "names": " ".join(names), "VIRTUAL_ENV": sys.prefix},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def write_upstream(found, folder):
    """Its shape, of what --system makes of pre-training."""
    options = ["--config", str(SHAPE), *found["ssl_args"].split()]
    conf = OFASSLTask.get_parser().parse_args(options).upstream_conf
    path = folder / "upstream.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


SYSTEMS = {"ofa": 40, "none": 20, "mean3": 60, "conv4": 80, "atome": 40, "sew": 40}
SYSTEMS |= {"stochastic": 40, "squeeze": 40, "cif": 40, "cif_at_0": 20}
SYSTEMS |= {"ofa_at_0": 20, "ends": 40, "log_period": 40, "condition_durations": 40}
SYSTEMS |= {"uniform": 40}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_a_classifier(system, build, tmp_path):
    found = settings(system)
    assert found["cls_args"].endswith("--seed 1")  # so that users have the last word
    tag = "" if system == "ofa" else f"_{system}"
    assert found["cls_exp"].endswith(f"/cls_train_cls{tag}_raw")
    upstream = write_upstream(found, tmp_path)
    model = build(
        SHAPE.with_name("train_cls.yaml"), *found["cls_args"].split(), upstream=upstream
    )
    batch = torch.randn(2, 16000), torch.tensor([16000, 12000])
    labels = torch.tensor([[0], [2]]), torch.tensor([1, 1])
    loss, _, _ = model.train()(*batch, *labels)
    loss.backward()
    assert torch.isfinite(loss)
    with torch.no_grad():
        units, lengths = model.eval().encode(*batch)
        assert model.decoder(units, lengths).shape == (2, 3)
    period = float(model.frontend.stats()["period_ms"])
    assert period == pytest.approx(SYSTEMS[system], rel=0.15)
    for name in found["adaptive_configs"].split():
        options = (found["cls_args"] + found["adaptive_args"]).split()
        model = build(TEMPLATE / name, *options, upstream=upstream)
        assert model.frontend.policy.learnable is not None
    ours = ("ofa", "uniform", "ends", "log_period", "condition_durations")
    assert bool(found["adaptive_configs"]) == (system in ours)


def test_a_stochastic_classifier_at_its_squeezes(parse, tmp_path):
    from espnet_ofa.bin import cls_inference
    from espnet_ofa.tasks.cls import OFACLSTask

    found = settings("stochastic")
    args = parse(
        SHAPE.with_name("train_cls.yaml"),
        *found["cls_args"].split(),
        upstream=write_upstream(found, tmp_path),
    )
    torch.save(OFACLSTask.build_model(args).state_dict(), tmp_path / "cls.pth")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    wave = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "u1.wav", wave, 16000)
    (tmp_path / "wav.scp").write_text(f"u1 {tmp_path}/u1.wav\n")
    (tmp_path / "text").write_text("u1 a\n")
    squeezes = found["inference_squeezes"].split()
    cls_inference.main(
        ["--test_set", f"test:{tmp_path}", "--squeeze", *squeezes, "--system"]
        + [f"{tmp_path}/config.yaml", f"{tmp_path}/cls.pth", str(tmp_path), "own"]
    )
    periods = {}
    for squeeze in squeezes:
        stats = load_stats(tmp_path / f"lamown-squeeze{squeeze}/test")
        assert stats.squeeze == squeeze
        periods[squeeze] = stats.period_ms
    expected = {"1,1,1": 20, "2,1,1": 40, "3,1,1": 60, "4,1,1": 80}
    assert periods == pytest.approx(expected, rel=0.08)  # one second


def test_systems_without_a_classifier_are_refused():
    assert "--system sandwich is of ASR" in settings("sandwich")
    for system in ("mean9", "ofa_at_", "cif_at_high"):
        assert "--system is ofa, none, mean2" in settings(system)


def test_a_system_of_a_fixed_rate_as_in_the_readme():
    text = (ROOT / "egs2/speech_commands/ofa1/README.md").read_text()
    assert "lam=null" in settings(re.search(r"--system (\w+)\n", text)[1])["cls_args"]
