"""AutoModel loads what we publish, bit for bit, and refuses what does not fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel  # noqa: E402

from espnet_ofa import OFAUpstream, set_lam  # noqa: E402
from espnet_ofa.checksums import write_checksums  # noqa: E402
from espnet_ofa.interop.transformers import OFAConfig, OFAModel  # noqa: E402
from espnet_ofa.subsampling import LamUnsetError  # noqa: E402
from espnet_ofa.upstream import UpstreamConfig  # noqa: E402
from espnet_ofa.zoo.pack import pack_upstream  # noqa: E402

TINY = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 12, "mels": 16},
    "dim": 8,
    "layers": 2,
    "heads": 2,
    "ff_dim": 12,
    "pos_kernel": 4,
    "pos_groups": 2,
}


@pytest.fixture(scope="module")
def upstream() -> OFAUpstream:
    torch.manual_seed(3)
    return OFAUpstream(UpstreamConfig.from_dict(TINY)).eval()


@pytest.fixture(scope="module")
def packed(upstream, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ssl")
    upstream.save_pretrained(root / "upstream")
    return pack_upstream(root / "upstream", root / "packed")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two utterances, and the mask of their samples."""
    torch.manual_seed(4)
    lengths = torch.tensor([9000, 5000])
    mask = (torch.arange(9000) < lengths[:, None]).long()
    return torch.randn(2, 9000) * mask, mask


@torch.no_grad()
def assert_same(model, upstream, batch, lam) -> None:
    wave, mask = batch
    found = model(wave, attention_mask=mask, lam=lam, output_hidden_states=True)
    expected = upstream(wave, mask.sum(1), lam=lam)
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(found.last_hidden_state, expected.hidden_states[-1])
    for name in ("lengths", "durations", "frame_lengths", "period_ms"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_equal_to_the_bit(packed, upstream, batch, lam):
    model = AutoModel.from_pretrained(packed)
    assert type(model) is OFAModel and not model.training
    assert_same(model, upstream, batch, lam)


@torch.no_grad()
@pytest.mark.parametrize("normalize", [False, True])
def test_the_feature_extractor_that_is_published(normalize, tmp_path):
    """It pads; an upstream that wants normalised waveforms normalises them itself."""
    upstream = OFAUpstream(
        UpstreamConfig.from_dict({**TINY, "normalize_wave": normalize})
    )
    upstream.eval().save_pretrained(tmp_path / "upstream")
    packed = pack_upstream(tmp_path / "upstream", tmp_path / "packed")
    waves = [torch.randn(9000) + 0.5, 3 * torch.randn(5000)]
    extract = AutoFeatureExtractor.from_pretrained(packed)
    found = extract(
        [wave.numpy() for wave in waves],
        sampling_rate=16000,
        padding=True,
        return_tensors="pt",
    )
    model = AutoModel.from_pretrained(packed)
    out = model(**found, lam=0.6)
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    expected = upstream(padded, torch.tensor([9000, 5000]), lam=0.6)
    assert torch.equal(out.last_hidden_state, expected.hidden_states[-1])
    with pytest.raises(ValueError, match="sampling rate"):
        extract(waves[0].numpy(), sampling_rate=8000)


def test_every_way_to_name_it(packed, upstream, batch, tmp_path):
    upstream.save_pretrained(tmp_path / "ours")  # without config.json
    for model in (
        AutoModel.from_pretrained(str(packed)),
        AutoModel.from_pretrained(packed, config=AutoConfig.from_pretrained(packed)),
        OFAModel.from_pretrained(packed),
        OFAModel.from_pretrained(tmp_path / "ours"),
    ):
        assert_same(model, upstream, batch, 0.5)


def test_the_config_is_whole(packed, upstream):
    config = AutoConfig.from_pretrained(packed)
    assert type(config) is OFAConfig and config.lam is None
    assert config.upstream_config() == upstream.config
    assert (config.hidden_size, config.num_hidden_layers) == (8, 2)
    told = json.loads((packed / "config.json").read_text())
    assert set(told) == {"model_type", "architectures", *upstream.config.to_dict()}


def test_lambda_is_asked_for(packed, batch):
    wave, mask = batch
    model = AutoModel.from_pretrained(packed)
    with torch.no_grad():
        with pytest.raises(LamUnsetError):
            model(wave, mask)
        set_lam(model, 0.9)
        by_hand = model(wave, mask)
        chosen = AutoModel.from_pretrained(packed, lam=0.9)(wave, mask)
    assert torch.equal(by_hand.last_hidden_state, chosen.last_hidden_state)
    assert by_hand.hidden_states is None
    (last, *_) = chosen.to_tuple()
    assert last.shape[1] < model(wave, mask, lam=0.1).last_hidden_state.shape[1]


def test_output_forms(packed, batch):
    model = AutoModel.from_pretrained(packed, lam=0.5, output_hidden_states=True)
    wave, _ = batch
    with torch.no_grad():
        out = model(wave)
        as_tuple = model(wave, return_dict=False)
    assert len(out.hidden_states) == 3
    assert torch.equal(as_tuple[0], out["last_hidden_state"])


def test_a_draw_in_training_only(packed, batch):
    model = AutoModel.from_pretrained(packed, lam=0.0, lam_train="uniform")
    wave, _ = batch
    units = {model.train()(wave).last_hidden_state.shape[1] for _ in range(5)}
    assert len(units) > 1
    assert model.eval()(wave).last_hidden_state.shape[1] == max(*units, 27)


def test_fine_tuning_reaches_every_part(packed, batch):
    model = AutoModel.from_pretrained(packed, lam=0.7).train()
    model(batch[0]).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_saved_it_loads_every_way(packed, batch, tmp_path):
    model = AutoModel.from_pretrained(packed, lam=0.4)
    with torch.no_grad():
        model.project.bias.add_(1.0)  # as training would
    model.save_pretrained(tmp_path)
    assert "policy.draws" not in load_file(tmp_path / "model.safetensors")
    ours = OFAUpstream.from_pretrained(tmp_path)
    assert_same(AutoModel.from_pretrained(tmp_path), ours, batch, 0.6)
    assert AutoConfig.from_pretrained(tmp_path).lam == 0.4
    # How transformers' Trainer resumes.
    state = load_file(tmp_path / "model.safetensors")
    again = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    missing, unexpected = again.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["policy.draws"], [])
    assert_same(again, ours, batch, 0.6)


def test_half_precision(packed):
    model = AutoModel.from_pretrained(packed, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.project.weight.equal(
        OFAUpstream.from_pretrained(packed).project.weight.bfloat16()
    )


def copy_of(packed, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(packed, tmp_path / "copy"))


def test_keys_are_strict(packed, tmp_path):
    folder = copy_of(packed, tmp_path)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    state["surplus"] = state.pop("project.bias")
    save_file(state, weights)
    with pytest.raises(ValueError, match=r"model\.safetensors: expected \d+ bytes"):
        AutoModel.from_pretrained(folder)
    write_checksums(folder)
    with pytest.raises(ValueError, match=r"missing: project\.bias; 1 unexpected: surp"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_altered_files_are_refused(packed, tmp_path, name):
    folder = copy_of(packed, tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data.replace(b"8", b"9"))
    with pytest.raises(ValueError, match=f"{name}: expected sha256"):
        AutoModel.from_pretrained(folder)


def test_what_is_wrong_is_said(packed, tmp_path, batch):
    with pytest.raises(ValueError, match="unknown options device_map; expected"):
        AutoModel.from_pretrained(packed, device_map="cpu")
    with pytest.raises(ValueError, match="unknown options subfolder"):
        OFAModel.from_pretrained(packed, subfolder="x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected config\.json or config"):
        OFAModel.from_pretrained(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="tiny: expected a directory, a zip"):
        OFAModel.from_pretrained("tiny")
    wave, mask = batch
    model = AutoModel.from_pretrained(packed, lam=0.5)
    for wrong in (mask.flip(1), mask[:, :-1]):
        with pytest.raises(ValueError, match="attention_mask: .*on the right"):
            model(wave, wrong)


def test_importing_the_package_does_not_import_transformers(tmp_path):
    import subprocess

    code = "import sys, espnet_ofa, espnet_ofa.upstream, espnet_ofa.zoo.publish\n"
    code += "assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
