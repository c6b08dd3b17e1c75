"""Packing a classifier, and loading it from nothing but the package."""

from __future__ import annotations

import re
import shutil
from typing import NamedTuple

import pytest
import soundfile
import torch
import trained as tiny
import yaml
from huggingface_hub import ModelCard

from espnet_ofa.bin import publish as command
from espnet_ofa.checksums import verify
from espnet_ofa.report.stats import load_stats
from espnet_ofa.zoo.pack import pack_cls
from espnet_ofa.zoo.pull import load_asr, load_cls

pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")

from espnet2.bin.cls_inference import Classification  # noqa: E402

from espnet_ofa.bin import cls_inference  # noqa: E402
from espnet_ofa.tasks.cls import OFACLSTask  # noqa: E402

LEARNED = torch.sigmoid(torch.tensor(1.2)).item()


class Packed(NamedTuple):
    """The package, an utterance, its states, and its class at the learned lambda."""

    folder: object
    wave: object
    states: torch.Tensor
    label: str


@torch.no_grad()
def encode(model, wave):
    return model.encode(wave[None], torch.tensor([len(wave)]))[0]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A classifier that learned lambda, classified with, packed; its training gone."""
    root = tmp_path_factory.mktemp("far") / "away_from_here"
    data = root / "data"
    tiny.write_data(data)
    (data / "text").write_text("u1 yes\nu2 no\nu3 yes\nu4 no\n")
    (root / "classes.txt").write_text("no\nyes\n<unk>\n")
    config = {
        **{key: tiny.CONFIG[key] for key in ("encoder", "encoder_conf", "normalize")},
        "frontend": "ofa",
        "frontend_conf": {"lam": "adaptive", "lam_conf": {"init": 0.3}},
        "model": "ofa",
        "decoder": "ofa",
    }
    config["frontend_conf"]["upstream"] = tiny.UPSTREAM
    (root / "train.yaml").write_text(yaml.safe_dump(config))
    exp = root / "cls_tiny"
    flags = ["--config", str(root / "train.yaml"), "--output_dir", str(exp)]
    flags += ["--token_list", str(root / "classes.txt")]
    args = OFACLSTask.get_parser().parse_args(flags)
    torch.manual_seed(0)
    model = OFACLSTask.build_model(args)
    with torch.no_grad():
        model.frontend.policy.learnable.raw.fill_(0.012)
    exp.mkdir()
    checkpoint = exp / "valid.acc.ave.pth"
    torch.save(model.state_dict(), checkpoint)
    (exp / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    cls_inference.main(
        ["--test_set", f"test:{data}", "--system", str(exp / "config.yaml")]
        + [str(checkpoint), str(exp / "classify"), "0", "own"]
    )
    out = tmp_path_factory.mktemp("packed") / "model"
    command.main(
        ["pack_cls", "--exp_dir", str(exp), "--model_file", checkpoint.name]
        + ["--out_dir", str(out), "--datasets", "noise", "--license", "mit"]
    )
    wave = torch.from_numpy(soundfile.read(data / "u1.wav", dtype="float32")[0])
    given = (exp / "classify/lamown/test/text").read_text().splitlines()[0].split()[1]
    assert load_stats(exp / "classify/lamown/test").lam == pytest.approx(LEARNED)
    states = encode(model.eval(), wave)
    shutil.rmtree(root)
    return Packed(out, wave, states, given)


def test_it_loads_from_the_package_alone(packed):
    meta = yaml.safe_load((packed.folder / "meta.yaml").read_text())
    files = {
        k: packed.folder / v for k, v in (meta["yaml_files"] | meta["files"]).items()
    }
    for classifier in (Classification(**files), load_cls(packed.folder)):
        model = classifier.classification_model
        assert torch.equal(encode(model, packed.wave), packed.states)
        _, scores, label = classifier(packed.wave)
        assert label == packed.label and scores.shape == (2,)
    longest = load_cls(packed.folder, lam=1.0).classification_model
    assert encode(longest, packed.wave).shape[1] < packed.states.shape[1]
    with pytest.raises(ValueError, match="asr_train_config and asr_model_file among"):
        load_asr(packed.folder)


def test_it_has_no_sentencepiece_model(tmp_path):
    with pytest.raises(TypeError, match="bpemodel"):
        pack_cls(tmp_path, "x.pth", tmp_path / "out", bpemodel="bpe.model")  # type: ignore


def test_a_learned_lambda_is_settled(packed):
    config = yaml.safe_load((packed.folder / "cls_tiny/config.yaml").read_text())
    settled = config["frontend_conf"]["lam_conf"]["init"]
    assert settled == pytest.approx(LEARNED)


def test_the_card_tells_the_run(packed, tmp_path, monkeypatch, capsys):
    card = ModelCard.load(packed.folder / "README.md")
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "audio-classification"
    (result,) = data["model-index"][0]["results"]
    first, second = result["metrics"]
    assert first["name"] == "Accuracy (%) at lambda 0" and first["type"] == "accuracy"
    table = (packed.folder / "report/report.csv").read_text().splitlines()
    column = table[0].split(",").index("accuracy")
    found = [float(line.split(",")[column]) for line in table[1:]]
    assert [first["value"], second["value"]] == found
    assert f"was learned with the weights: {LEARNED:.4f}, from 0.3" in card.content
    assert "| accuracy (%)" in card.content and "CTC" not in card.content
    soundfile.write(tmp_path / "speech.wav", packed.wave.numpy(), 16000)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", card.content, re.DOTALL)
    assert code is not None
    exec(code[1].replace("USER/NAME", str(packed.folder)), {})
    assert capsys.readouterr().out.strip() in ("yes", "no")


def test_nothing_of_the_training_shows(packed):
    assert verify(packed.folder)
    for path in packed.folder.rglob("*"):
        assert path.is_dir() or b"away_from_here" not in path.read_bytes(), path


def test_an_altered_one_is_refused(packed, tmp_path):
    copy = shutil.copytree(packed.folder, tmp_path / "copy")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_cls(copy)
