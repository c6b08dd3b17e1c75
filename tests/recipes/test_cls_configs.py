"""Every classification configuration is accepted by ESPnet and builds its model."""

import re
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted({p.resolve() for p in ROOT.glob("egs2/*/*1/conf/**/train_cls*.yaml")})
SHAPE = ROOT / "egs2/TEMPLATE/ofa1/conf/train_ssl.yaml"


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
    from espnet_ofa.tasks.cls import OFACLSTask

    folder = tmp_path_factory.mktemp("cls")
    upstream = yaml.safe_load(SHAPE.read_text())["upstream_conf"]
    (folder / "upstream.yaml").write_text(yaml.safe_dump(upstream))
    (folder / "classes.txt").write_text("a\nb\nc\n<unk>\n")

    upstream |= {"compressor": "mean", "compressor_conf": {"factor": 2}}
    (folder / "mean2.yaml").write_text(yaml.safe_dump(upstream))

    def build_model(config, *more, upstream="upstream.yaml"):
        options = ["--config", str(config), "--token_list", f"{folder}/classes.txt"]
        options += ["--frontend_conf", f"upstream={folder}/{upstream}", *more]
        options += ["--frontend_conf", "fs=16k"]
        return OFACLSTask.build_model(OFACLSTask.get_parser().parse_args(options))

    return build_model


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


def test_upstream_of_a_fixed_rate_as_in_the_readme(build):
    text = (ROOT / "egs2/speech_commands/ofa1/README.md").read_text()
    line = re.search(r'--cls_args "(.*lam=null.*)"', text)
    assert line
    config = SHAPE.with_name("train_cls.yaml")
    model = build(config, *line[1].split(), upstream="mean2.yaml").eval()
    units, lengths = model.encode(torch.randn(1, 16000), torch.tensor([16000]))
    assert int(lengths[0]) == 25 and model.decoder(units, lengths).shape == (1, 3)
