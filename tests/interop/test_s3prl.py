"""What s3prl relies on: states at 20 ms, as long as the waveform says."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa import OFAUpstream, plugin, set_lam
from espnet_ofa.cif import expand
from espnet_ofa.interop.s3prl import UpstreamExpert
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.upstream.extractor import frame_lengths

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
RATE = 320


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("upstream")
    OFAUpstream(UpstreamConfig.from_dict(TINY)).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def experts(folder) -> dict[float, UpstreamExpert]:
    return {lam: UpstreamExpert(folder, lam=lam).eval() for lam in (0.0, 0.6, 1.0)}


def waves(*lengths: int) -> list[torch.Tensor]:
    torch.manual_seed(6)
    return [torch.randn(n) for n in lengths]


@torch.no_grad()
@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=3),
    lam=st.sampled_from([0.0, 0.6, 1.0]),
)
def test_every_length_is_as_s3prl_reckons(experts, lengths, lam):
    out = experts[lam](waves(*lengths))
    frames = [len(range(0, n, RATE)) for n in lengths]  # s3prl.nn.S3PRLUpstream
    for state in out["hidden_states"]:
        assert state.shape == (len(lengths), max(frames), 8)
    assert out["lengths"].tolist() == frames
    for row, n in zip(out["last_hidden_state"], lengths, strict=True):
        assert round(n / RATE) <= len(row)  # s3prl.upstream.interfaces.Featurizer
        valid = row[: math.ceil(n / RATE)]
        # True frames, then the last of them again, then nothing.
        true = frame_lengths(n)
        assert len(valid) - true in (0, 1, 2)
        assert (valid[true:] == valid[true - 1]).all()
        assert (row[len(valid) :] == 0).all() and valid.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_states_are_the_units_over_their_durations(experts, folder, lam):
    upstream = OFAUpstream.from_pretrained(folder)
    wavs = waves(9000, 5000)
    wave = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    out = upstream(wave, torch.tensor([9000, 5000]), lam=lam)
    found = experts[lam](wavs)
    torch.testing.assert_close(found["period_ms"], out.period_ms)
    for state, units in zip(found["hidden_states"], out.hidden_states, strict=True):
        frames = expand(units, out.durations, int(out.frame_lengths.max()))
        for row, expected, n in zip(state, frames, out.frame_lengths, strict=True):
            torch.testing.assert_close(row[:n], expected[:n])
        if lam == 0:
            assert torch.equal(state[0, : units.shape[1]], units[0])


@torch.no_grad()
def test_alone_as_in_a_batch(experts):
    wavs = waves(8000, 3333, 500)
    for expert in experts.values():
        together = expert(wavs)["last_hidden_state"]
        for row, wav in zip(together, wavs, strict=True):
            alone = expert([wav])["last_hidden_state"][0]
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_the_upstream(folder):
    expert = UpstreamExpert(folder, lam=0.6).train()
    expert(waves(6000))["last_hidden_state"].square().sum().backward()
    assert all(p.grad is not None for p in expert.parameters())


def test_lambda_is_asked_for(folder, tmp_path):
    for options in ({}, {"model_config": {}}):
        with pytest.raises(ValueError, match=r"lambda is not set.*extra_conf.*-g"):
            UpstreamExpert(folder, **options)
    with pytest.raises(ValueError, match="lambda must lie in"):
        UpstreamExpert(folder, lam=3)
    config = tmp_path / "lam.yaml"  # all that run_downstream.py hands on
    config.write_text("lam: 0.6\n")
    wavs = waves(8000)
    with torch.no_grad():
        given = UpstreamExpert(str(folder), str(config), refresh=False).eval()
        by_file = given(wavs)
        by_name = UpstreamExpert(folder, model_config=config, lam=1.0).eval()(wavs)
        set_lam(given, 1.0)
        by_hand = given(wavs)
    assert by_name["period_ms"] > by_file["period_ms"]
    assert torch.equal(by_hand["last_hidden_state"], by_name["last_hidden_state"])
    config.write_text("lam: 0.6\nlayers: 3\n")
    with pytest.raises(ValueError, match="expected lam or squeeze, found .*layers"):
        UpstreamExpert(folder, config)


def test_a_fixed_rate_needs_no_lambda(tmp_path):
    shape = {**TINY, "compressor": "mean", "compressor_conf": {"factor": 2}}
    OFAUpstream(UpstreamConfig.from_dict(shape)).save_pretrained(tmp_path)
    with torch.no_grad():
        out = UpstreamExpert(tmp_path).eval()(waves(8000))
    assert out["last_hidden_state"].shape[1] == 25
    assert out["period_ms"].item() == pytest.approx(40, rel=0.05)


def test_a_stochastic_one_needs_a_squeeze(tmp_path):
    shape = {**TINY, "compressor": "squeeze"}
    shape["compressor_conf"] = {"factor": [1, 2], "kernel": 5, "groups": 2}
    OFAUpstream(UpstreamConfig.from_dict(shape)).save_pretrained(tmp_path)
    for options in ({"squeeze": [2]}, {"model_config": {"squeeze": [2, 1, 1]}}):
        expert = UpstreamExpert(tmp_path, **options).train()
        assert expert(waves(8000))["period_ms"].item() == pytest.approx(40, rel=0.05)
    with pytest.raises(RuntimeError, match=r"squeeze is not set; .*S in \[1, 2\]"):
        UpstreamExpert(tmp_path).eval()(waves(800))


def test_bad_input(experts, tmp_path):
    expert = experts[0.6]
    with pytest.raises(ValueError, match=r"waveform 1: expected .* found shape \(0,\)"):
        expert(waves(400, 0))
    with pytest.raises(ValueError, match=r"waveform 0: .*\(1, 5\)"):
        expert([torch.zeros(1, 5)])
    with pytest.raises(ValueError, match="found an empty one"):
        expert([])
    with pytest.raises(ValueError, match="path_or_url"):
        UpstreamExpert(lam=0.5)
    with pytest.raises(FileNotFoundError, match="expected a directory, a zip"):
        UpstreamExpert(tmp_path / "none", lam=0.5)


def test_the_entry_is_listed(folder):
    hub = ModuleType("s3prl.hub")
    plugin.register_module(hub)
    assert callable(hub.ofa_local)
    expert = hub.ofa_local(ckpt=str(folder), refresh=False, lam=0.6)
    assert isinstance(expert, UpstreamExpert)
    assert expert.get_downsample_rates("hidden_states") == RATE


@pytest.fixture(scope="module")
def s3prl() -> ModuleType:
    """With what it imports of a torchaudio that is not there any more, if need be."""
    import sys

    pytest.importorskip("s3prl")
    torchaudio = pytest.importorskip("torchaudio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchaudio, "set_audio_backend", lambda _: None, raising=False)
        if not hasattr(torchaudio, "sox_effects"):
            effects = ModuleType("torchaudio.sox_effects")
            effects.apply_effects_tensor = None  # type: ignore[attr-defined]
            patch.setitem(sys.modules, effects.__name__, effects)
        plugin.register()  # where the package is on the path but not installed
        import s3prl.hub

    return s3prl


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[800], [1600, 100], [16000, 12345, 321], [7]])
def test_s3prl_itself(s3prl, folder, experts, lengths):
    from s3prl.nn import Featurizer, S3PRLUpstream
    from s3prl.upstream.interfaces import Featurizer as OldFeaturizer

    assert "ofa_local" in S3PRLUpstream.available_names()
    assert "ofa_local" not in S3PRLUpstream.available_names(only_registered_ckpt=True)
    model = S3PRLUpstream(
        "ofa_local", path_or_url=str(folder), extra_conf={"lam": 0.6}
    ).eval()
    assert model.num_layers == 3 and set(model.downsample_rates) == {RATE}
    wavs = waves(*lengths)
    wave = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    states, n_frames = model(wave, torch.tensor(lengths))
    assert n_frames[0].tolist() == [math.ceil(n / RATE) for n in lengths]
    summed, _ = Featurizer(model)(states, n_frames)
    assert summed.shape == (len(lengths), max(n_frames[0]), 8)
    found = experts[0.6](wavs)["hidden_states"]
    if max(lengths) >= 800:  # else s3prl pads
        for a, b in zip(states, found, strict=True):
            torch.testing.assert_close(a, b)
    old = OldFeaturizer(experts[0.6], upstream_device="cpu")
    rows = old(wavs, experts[0.6](wavs))
    assert [len(row) for row in rows] == [round(n / RATE) for n in lengths]


def test_espnet_s3prl_frontend(s3prl, folder):
    pytest.importorskip("espnet2")
    from espnet2.asr.frontend.s3prl import S3prlFrontend

    conf = yaml.safe_load(f"{{upstream: ofa_local, path_or_url: {folder}}}")
    with pytest.raises(ValueError, match="lambda is not set"):
        S3prlFrontend(frontend_conf=conf)
    conf["extra_conf"] = {"lam": 0.6}
    frontend = S3prlFrontend(frontend_conf=conf, multilayer_feature=True)
    wave, lengths = torch.randn(2, 8000), torch.tensor([8000, 4000])
    feats, n_feats = frontend(wave, lengths)
    assert feats.shape == (2, 25, 8) and n_feats.tolist() == [25, 13]
