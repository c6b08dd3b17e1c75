"""Every training configuration is accepted by ESPnet's parser and builds its model."""

from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted({p.resolve() for p in ROOT.glob("egs2/*/ofa1/conf/**/*.yaml")})
FILES = sorted({*FILES, *ROOT.glob("conf/**/*.yaml")})


def found(prefix):
    return [
        pytest.param(p, id=str(p.relative_to(ROOT)))
        for p in FILES
        if p.name.startswith(prefix)
    ]


@pytest.fixture(scope="module")
def asr_task():
    from espnet_ofa.plugin import register

    register()
    from espnet2.tasks.asr import ASRTask

    return ASRTask


@pytest.fixture(scope="module")
def token_list(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    path.write_text("\n".join(["<blank>", "<unk>", "a", "b", "<sos/eos>"]) + "\n")
    return path


def upstream_of(config, folder):
    """The upstream that the recipe of an ASR configuration pre-trains, as a config."""
    with_shape = sorted(config.parent.glob("train_ssl*.yaml"))
    conf = yaml.safe_load(with_shape[0].read_text())["upstream_conf"]
    path = folder / "upstream.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def test_there_are_configs():
    assert len(found("train_ssl")) >= 5 and len(found("train_asr")) >= 12
    others = [
        p for p in FILES if not p.name.startswith(("train_ssl", "train_asr", "de"))
    ]
    assert not others


@pytest.mark.parametrize("config", found("train_ssl"))
def test_ssl_config(config):
    from espnet_ofa.tasks.ssl import OFASSLTask

    args = OFASSLTask.get_parser().parse_args(["--config", str(config)])
    model = OFASSLTask.build_model(args)
    assert args.best_model_criterion[0] == ["valid", "loss_masked", "min"]
    assert sum(p.numel() for p in model.parameters()) > 0


@pytest.mark.parametrize("config", found("train_asr"))
def test_asr_config(config, asr_task, token_list, tmp_path):
    upstream = upstream_of(config, tmp_path)
    options = ["--config", str(config), "--token_list", str(token_list)]
    options += ["--frontend_conf", f"upstream={upstream}", "--frontend_conf", "fs=16k"]
    args = asr_task.get_parser().parse_args(options)
    model = asr_task.build_model(args)
    adaptive = "adaptive" in config.name
    raw = [n for n, _ in model.named_parameters() if n.endswith("learnable.raw")]
    assert len(raw) == adaptive
    assert (model.decoder is not None) == ("s2s" in config.name)
    if model.encoder.output_size() <= 256:  # the large ones only have to build
        speech = torch.randn(2, 16000)
        model.train()
        loss, stats, _ = model(
            speech, torch.tensor([16000, 12000]), torch.tensor([[2, 3], [3, -1]]),
            torch.tensor([2, 1]),
        )  # fmt: skip
        assert torch.isfinite(loss) and "infeasible" in stats
        assert ("loss_price" in stats) == ("price" in config.name)


@pytest.mark.parametrize("config", found("decode"))
def test_decode_config(config):
    from espnet_ofa.bin.asr_inference import get_parser

    args = get_parser().parse_args(["--config", str(config), "--output_dir", "x"])
    assert args.search == ("greedy" if "ctc" in config.name else "beam")
    if args.search == "beam":
        assert args.maxlenratio < 0  # constant, whatever lambda is
