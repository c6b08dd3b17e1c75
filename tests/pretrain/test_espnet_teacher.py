"""Encoders of ``espnet2.tasks.ssl`` teach with ESPnet's own code."""

import argparse

import pytest
import torch
import yaml
from espnet2.tasks.ssl import SSLTask

from espnet_ofa.pretrain.distill import start_from_teacher
from espnet_ofa.pretrain.teacher import load_teacher
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.extractor import frame_lengths
from espnet_ofa.upstream.importers import load_any

SHAPES = [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2]
WIDTHS = {"output_size": 16, "attention_heads": 2, "num_blocks": 3}
ENCODERS = {
    "transformer": {"input_layer": "wav2vec", "linear_units": 24}
    | {"pos_enc_layer_type": "conv", "normalize_before": True},
    "e_branchformer": {"input_layer": None, "cgmlp_linear_units": 24},
    "conformer": {"input_layer": "linear", "linear_units": 24},
}


def options(encoder="transformer", **changes):
    """What ESPnet's config.yaml holds of a model."""
    values = {
        "encoder": encoder,
        "encoder_conf": {**WIDTHS, **ENCODERS[encoder]},
        "frontend": "wav2vec_cnn",
        "frontend_conf": {"norm_mode": "group_norm", "conv_mode": "standard"}
        | {"bias": True, "shapes": SHAPES, "normalize_audio": True},
        "preencoder": "linear",
        "preencoder_conf": {"output_size": 16},
        "token_list": ["a", "b", "c"],
        "loss": [{"name": "hubert", "conf": {"num_classes": 3, "final_dim": 4}}],
        "util": [{"name": "mask", "conf": {}}],
    }
    return {**values, **changes}


def save(folder, values):
    """A random model of ESPnet's, as its training leaves it; in eval mode."""
    names = ("specaug", "normalize", "model_conf", "init", "input_size")
    rest = dict.fromkeys(names) | {"model": "espnet", "model_conf": {}}
    torch.manual_seed(0)
    model = SSLTask.build_model(argparse.Namespace(**rest, **values))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    (folder / "config.yaml").write_text(yaml.safe_dump({**rest, **values}))
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    return model.eval()


@torch.no_grad()
def their_states(model, wave):
    """(S, D) of one utterance, from the embedding upwards."""
    x, length = model.preencoder(*model.frontend(wave[None], torch.tensor([len(wave)])))
    embedding = x if model.encoder.embed is None else model.encoder.embed(x)
    if isinstance(embedding, tuple):  # with relative positions
        embedding = embedding[0]
    top, states, _ = model.inference_encode(wave[None], torch.tensor([len(wave)]))
    return [y[0] for y in (embedding, *states[:-1], top)]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_hidden_states_are_those_of_espnet_for_each_utterance(tmp_path, encoder):
    model = save(tmp_path, options(encoder))
    teacher = load_teacher(tmp_path / "valid.loss.ave.pth")
    assert (teacher.dim, teacher.depth) == (16, 3)
    assert not any(p.requires_grad for p in teacher.parameters())
    wave = torch.randn(3, 17000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([16000, 9999, 380])
    states, n_frames = teacher(wave, lengths, [0, 1, 2, 3])
    assert states.shape == (3, frame_lengths(17000), 4, 16)
    assert n_frames.tolist() == [49, 30, 1]
    for row, length in ((0, 16000), (1, 9999)):
        wanted = torch.stack(their_states(model, wave[row, :length]), 1)
        torch.testing.assert_close(states[row, : len(wanted)], wanted)
    low, _ = teacher(wave, lengths, [2])
    assert torch.equal(low[:, :, 0], states[:, :, 2])
    short = torch.nn.functional.pad(wave[2, :380], (0, 20))
    assert torch.equal(states[2, 0, 3], their_states(model, short)[3][0])


def test_it_can_only_teach(tmp_path):
    save(tmp_path, options())
    path = tmp_path / "valid.loss.ave.pth"
    with pytest.raises(ValueError, match="`encoder: transformer`.*only be a teacher"):
        load_any(path)
    conf = UpstreamConfig(extractor="logmel", dim=16, layers=1, heads=2, ff_dim=24)
    student = OFAUpstream(conf)
    start_from_teacher(student, load_teacher(path), "none")
    for what in ("front", "layers"):
        with pytest.raises(ValueError, match="ESPnet's own code.* use init: none"):
            start_from_teacher(student, load_teacher(path), what)


def test_a_cache_knows_its_settings(tmp_path):
    """The same weights with other heads are another teacher."""
    found = []
    for heads in (2, 4):
        values = options()
        values["encoder_conf"]["attention_heads"] = heads
        save(tmp_path, values)
        found.append(load_teacher(tmp_path / "valid.loss.ave.pth").fingerprint())
    assert found[0] != found[1]


def test_it_takes_no_hints_and_no_bfloat16(tmp_path):
    save(tmp_path, options())
    path = tmp_path / "valid.loss.ave.pth"
    hints = {"normalize_wave": True, "heads": 2}
    with pytest.raises(ValueError, match="found heads, normalize_wave: .* out of"):
        load_teacher(path, hints=hints)
    with pytest.raises(ValueError, match="expected dtype: float32, found bfloat16"):
        load_teacher(path, "bfloat16")
    teacher = load_teacher(path)
    with pytest.raises(ValueError, match="expected dtype: float32, found bfloat16"):
        teacher.to_precision("bfloat16")


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "valid.loss.ave.pth"
    values = options()
    save(tmp_path, values)
    state = torch.load(path, weights_only=True)
    del state["encoder.after_norm.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"missing: encoder\.after_norm\.weight"):
        load_teacher(path)

    front = values["frontend_conf"]
    save(tmp_path, {**values, "frontend_conf": {**front, "fs": "8k"}})
    with pytest.raises(ValueError, match="16000 Hz, found 8000 Hz"):
        load_teacher(path)
    wide = [*SHAPES[:-1], [8, 2, 1]]
    save(tmp_path, {**values, "frontend_conf": {**front, "shapes": wide}})
    with pytest.raises(ValueError, match="frame every 20 ms, 49 of 16000 .* found 98"):
        load_teacher(path)
