"""Imported encoders give the hidden states of their original implementation."""

import json
import os
import re
from dataclasses import replace

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from espnet_ofa import OFAUpstream
from espnet_ofa.bin import import_upstream
from espnet_ofa.pretrain.distill import start_from_teacher
from espnet_ofa.pretrain.teacher import load_teacher
from espnet_ofa.upstream.importers import load_any, read_source

LARGE = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
TINY = {
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}
TOLERANCE = 1e-5
# All layers of the large ones take minutes: by hand.
full = pytest.mark.skipif(
    not os.environ.get("ESPNET_OFA_SLOW"), reason="set ESPNET_OFA_SLOW=1"
)


@torch.no_grad()
def randomise(model, seed=0):
    """Weights under which every tensor shows in the output; in eval mode."""
    random = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        scale = ("norm.weight", "original0", "weight_g", "gru_rel_pos_const")
        if name.endswith(scale):
            p.fill_(1.0).add_(0.1 * torch.randn(p.shape, generator=random))
        elif p.dim() < 2 or "rel_attn_embed" in name:
            p.normal_(0.0, 0.1, generator=random)
        else:
            bound = (3 / p[0].numel()) ** 0.5  # faster than a normal distribution
            p.uniform_(-bound, bound, generator=random)
    return model.eval()


def huggingface(kind, folder, head=False, normalize=None, seed=0, **conf):
    """A random model of transformers, saved in its own layout."""
    name = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{name}Config")(**conf)
    with torch.device("meta"):  # weights come below
        model = getattr(transformers, name + ("ForCTC" if head else "Model"))(config)
    randomise(model.to_empty(device="cpu"), seed)
    model.save_pretrained(folder)
    if normalize is not None:
        feature_extractor(normalize).save_pretrained(folder)
    return model


def feature_extractor(normalize):
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)


def speech(seconds=1.2, rows=1):
    """Noise with an offset, at the level of speech."""
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(rows, int(16000 * seconds), generator=random)
    return 0.05 * noise + 0.02


@torch.no_grad()
def their_states(model, wave, normalize=False):
    x = feature_extractor(normalize)(
        list(wave.numpy()), sampling_rate=16000, return_tensors="pt"
    )
    out = model(x.input_values, output_hidden_states=True)
    # Some versions list the topmost state before the last norm.
    return [*out.hidden_states[:-1], out.last_hidden_state]


@torch.no_grad()
def my_states(upstream, wave):
    return upstream(wave, lam=0.0).hidden_states


def difference(mine, theirs):
    """Largest difference, in units of a state's own spread where that exceeds 1."""
    assert len(mine) == len(theirs)
    assert all(torch.isfinite(x).all() and x.std() > 0.1 for x in theirs)
    found = [
        (a - b).abs().max() / b.std().clamp(min=1)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return float(torch.stack(found).max())  # NaN, if there is one


# -- Hugging Face ---------------------------------------------------------------------

CASES = [
    # kind, configuration, layers in the ordinary run, true layers, normalised waveform
    ("hubert", {}, 12, 12, False),
    ("wav2vec2", {}, 2, 12, True),
    ("wavlm", {}, 3, 12, False),
    ("hubert", LARGE, 2, 24, True),
    ("wav2vec2", LARGE, 2, 24, True),
    ("wavlm", {**LARGE, "conv_bias": False}, 2, 24, True),
]
IDS = [f"{kind}-{'large' if conf else 'base'}" for kind, conf, *_ in CASES]


def check_case(folder, kind, conf, layers, normalize):
    conf = {**conf, "num_hidden_layers": layers}
    model = huggingface(kind, folder, normalize=normalize, **conf)
    wave = speech()
    theirs = their_states(model, wave, normalize)
    del model
    teacher = load_teacher(folder)
    states, n_frames = teacher(wave, torch.tensor([wave.shape[1]]), range(layers + 1))
    assert n_frames.tolist() == [theirs[0].shape[1]]
    found = difference(states.unbind(2), theirs)
    print(f"{kind}, {layers} layers of {theirs[0].shape[2]}: {found:.1e}")
    assert found < TOLERANCE
    return wave, theirs


@pytest.mark.parametrize(("kind", "conf", "layers", "_", "normalize"), CASES, ids=IDS)
def test_hidden_states_equal_those_of_transformers(
    tmp_path, kind, conf, layers, _, normalize
):
    wave, theirs = check_case(tmp_path, kind, conf, layers, normalize)
    if kind != "wavlm" and conf:
        upstream = load_any(tmp_path, {"compressor": "cif"})
        assert difference(my_states(upstream, wave), theirs) < TOLERANCE


@full
@pytest.mark.parametrize(("kind", "conf", "_", "layers", "normalize"), CASES, ids=IDS)
def test_at_full_depth(tmp_path, kind, conf, layers, _, normalize):
    check_case(tmp_path, kind, conf, layers, normalize)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_a_model_with_a_head_and_old_names(tmp_path, kind):
    model = huggingface(kind, tmp_path, head=True, normalize=False, **TINY)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {"original0": "weight_g", "original1": "weight_v"}
    for new, old in names.items():
        key = f"{kind}.encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        state[key.replace(f"parametrizations.weight.{new}", old)] = state.pop(key)
    torch.save(state, tmp_path / "pytorch_model.bin")
    wave = speech()
    theirs = their_states(getattr(model, kind), wave)
    assert difference(my_states(load_any(tmp_path), wave), theirs) < TOLERANCE


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
@pytest.mark.parametrize("stable", [False, True])
def test_teachers_are_honest_about_padding(tmp_path, kind, stable):
    conf = {**TINY, "do_stable_layer_norm": stable}
    huggingface(kind, tmp_path, normalize=True, **conf)
    teacher = load_teacher(tmp_path)
    wave, lengths = speech(rows=3), torch.tensor([19200, 9999, 380])
    batch, n_frames = teacher(wave, lengths, [0, 1, 2])
    assert n_frames.tolist() == [59, 30, 1]
    for row, n in enumerate(lengths.tolist()):
        alone, frames = teacher(
            wave[row : row + 1, :n], lengths[row : row + 1], (0, 1, 2)
        )
        torch.testing.assert_close(
            batch[row, : int(frames)], alone[0], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
@pytest.mark.parametrize("stable", [False, True])
def test_a_teachers_inner_layer_is_the_same_without_those_above(tmp_path, kind, stable):
    huggingface(kind, tmp_path, **TINY, do_stable_layer_norm=stable)
    teacher, wave = load_teacher(tmp_path), speech()
    lengths = torch.tensor([wave.shape[1]])
    whole, _ = teacher(wave, lengths, [0, 1, 2])
    for layer in range(3):
        alone, _ = teacher(wave, lengths, [layer])
        assert torch.equal(alone[:, :, 0], whole[:, :, layer])


def test_without_a_preprocessor_layer_norms_tell(tmp_path):
    for norm in ("group", "layer"):
        folder = tmp_path / norm
        huggingface("hubert", folder, **TINY, feat_extract_norm=norm)
        assert read_source(folder).config.normalize_wave == (norm == "layer")
        assert read_source(folder, normalize_wave=True).config.normalize_wave


# -- torchaudio and ESPnet ------------------------------------------------------------


def torchaudio_model(norm_first, dim=1024, layers=2, **conf):
    from torchaudio.models import wav2vec2_model

    mode, heads = ("layer_norm", 16) if norm_first else ("group_norm", 12)
    values = {
        "extractor_mode": mode,
        "extractor_conv_layer_config": None,
        "extractor_conv_bias": norm_first,
        "encoder_embed_dim": dim,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": 128,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": layers,
        "encoder_num_heads": heads,
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": 4 * dim,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": norm_first,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    return randomise(wav2vec2_model(**{**values, **conf}))


@torch.no_grad()
def torchaudio_states(model, wave):
    """Hidden states but the embedding."""
    layers, _ = model.extract_features(wave)
    return [*layers[:-1], model(wave)[0]]  # that one is behind the last norm


def check_torchaudio(folder, large, layers):
    model = torchaudio_model(large, 1024 if large else 768, layers)
    torch.save(model.state_dict(), folder / "model.pth")
    wave = speech()
    mine = my_states(load_any(folder / "model.pth"), wave)
    if large:
        wave = torch.nn.functional.layer_norm(wave, wave.shape, eps=1e-7)
    found = difference(mine[1:], torchaudio_states(model, wave))
    print(f"torchaudio, {layers} layers of {mine[0].shape[2]}: {found:.1e}")
    assert found < TOLERANCE


size = pytest.mark.parametrize("large", [False, True], ids=["base", "large"])


@size
def test_hidden_states_equal_those_of_torchaudio(tmp_path, large):
    check_torchaudio(tmp_path, large, 2)


@full
@size
def test_torchaudio_at_full_depth(tmp_path, large):
    check_torchaudio(tmp_path, large, 24 if large else 12)


def test_hints_for_shapes_that_do_not_tell(tmp_path):
    path = tmp_path / "model.pth"
    conf = {"encoder_num_heads": 4, "encoder_pos_conv_kernel": 9}
    model = torchaudio_model(False, dim=64, layers=1, **conf)
    torch.save(model.state_dict(), path)
    with pytest.raises(ValueError, match="how many attention heads .* width 64"):
        load_any(path)
    with torch.no_grad():
        wanted = model(speech())[0]
    upstream = load_any(path, hints={"heads": 4})
    assert upstream.config.pos_kernel == 9
    assert difference(my_states(upstream, speech())[1:], [wanted]) < TOLERANCE
    assert read_source(path, heads=4, norm_first=True).config.norm_first


def make_espnet_encoder(**conf):
    """ESPnet's HuBERT with random weights, and its configuration."""
    from espnet2.asr.encoder.hubert_encoder import TorchAudioHuBERTPretrainEncoder

    conf = {"input_size": 1, "finetuning": True, **conf}  # its way to hidden states
    return randomise(TorchAudioHuBERTPretrainEncoder(**conf)), conf


@pytest.fixture(scope="module")
def espnet_encoder():
    return make_espnet_encoder(
        encoder_embed_dim=48,
        encoder_num_layers=2,
        encoder_num_heads=6,
        encoder_ff_interm_features=64,
        encoder_pos_conv_kernel=8,
        encoder_pos_conv_groups=4,
    )


def espnet_folder(folder, encoder_and_conf, options):
    encoder, conf = encoder_and_conf
    state = {f"encoder.{name}": v for name, v in encoder.state_dict().items()}
    torch.save(state, folder / "valid.loss.ave.pth")
    values = {"encoder": "torchaudio_hubert", "encoder_conf": conf, **options}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "valid.loss.ave.pth"


def check_espnet(path, encoder):
    wave = speech()
    with torch.no_grad():
        top, lengths, _ = encoder(wave, torch.tensor([wave.shape[1]]))
    wanted = torchaudio_states(encoder.hubert_pretrain_model.wav2vec2, wave)
    assert torch.equal(wanted[-1], top)
    mine = my_states(load_any(path), wave)
    assert lengths.tolist() == [mine[-1].shape[1]]
    found = difference(mine[1:], wanted)
    print(f"ESPnet, {len(wanted)} layers of {top.shape[2]}: {found:.1e}")
    assert found < TOLERANCE


def test_hidden_states_equal_those_of_espnet(tmp_path, espnet_encoder):
    options = {"normalize": "utterance_mvn", "frontend_conf": {"fs": "16k"}}
    path = espnet_folder(tmp_path, espnet_encoder, options)
    check_espnet(path, espnet_encoder[0])
    assert load_teacher(path).depth == 2


@full
@size
def test_espnet_at_full_depth(tmp_path, large):
    conf = {
        "extractor_mode": "layer_norm",
        "extractor_conv_bias": True,
        "encoder_embed_dim": 1024,
        "encoder_num_layers": 24,
        "encoder_num_heads": 16,
        "encoder_ff_interm_features": 4096,
        "encoder_layer_norm_first": True,
    }
    made = make_espnet_encoder(**conf if large else {})
    made[0].pretrained_params = None  # a copy, which this needs no memory for
    check_espnet(espnet_folder(tmp_path, made, {}), made[0])


def fairseq_names(state, norm):
    """torchaudio's HuBERT as fairseq would name it."""
    parts = {
        "encoder.feature_projection.layer_norm": "layer_norm",
        "encoder.feature_projection.projection": "post_extract_proj",
        "encoder.transformer.": "encoder.",
        "pos_conv_embed.conv.parametrizations.weight.original0": "pos_conv.0.weight_g",
        "pos_conv_embed.conv.parametrizations.weight.original1": "pos_conv.0.weight_v",
        "pos_conv_embed.conv": "pos_conv.0",
        ".attention.": ".self_attn.",
        "feed_forward.intermediate_dense": "fc1",
        "feed_forward.output_dense": "fc2",
        ".conv.": ".0.",
    }
    found = {}
    for name, value in state.items():
        for theirs, fairseq in parts.items():
            name = name.replace(theirs, fairseq)
        name = re.sub(r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm", name)
        name = re.sub(r"(conv_layers\.\d+)\.self_attn_layer_norm", rf"\1.{norm}", name)
        found[name] = value
    return found


@pytest.mark.parametrize("norm_first", [False, True])
def test_espnets_default_hubert_has_fairseqs_names(tmp_path, norm_first):
    from torchaudio.models.wav2vec2.utils import import_fairseq

    shape = {"encoder_pos_conv_kernel": 8, "encoder_num_heads": 6}
    model = torchaudio_model(norm_first, dim=48, **shape)
    state = fairseq_names(model.state_dict(), "2.1" if norm_first else "2")
    # torchaudio, which reads fairseq's, says that these are its names.
    again = torchaudio_model(norm_first, dim=48, **shape)
    for p in again.parameters():
        torch.nn.init.zeros_(p)
    again.load_state_dict(import_fairseq._convert_state_dict(state))
    wanted = torchaudio_states(again, speech())
    state |= {"mask_emb": torch.zeros(48).half(), "final_proj.weight": torch.zeros(1)}
    path = tmp_path / "valid.loss.ave.pth"
    torch.save({f"encoder.encoder.{n}": v for n, v in state.items()}, path)
    conf = {"output_size": 48, "linear_units": 192, "attention_heads": 6}
    conf |= {"num_blocks": 2, "layer_norm_first": norm_first}
    conf |= {"activation_dropout": 0.3}
    values = {"encoder": "hubert_pretrain", "encoder_conf": conf}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    upstream = load_any(path)
    assert difference(my_states(upstream, speech())[1:], wanted) < TOLERANCE
    assert upstream.config.activation_dropout == 0.3

    values["encoder_conf"]["conv_feature_layers"] = "[(512,10,5)] * 7"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match="expected conv_feature_layers: .*, found"):
        read_source(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "hubert"}, "expected `encoder: torchaudio_hubert or .*'hubert'"),
        ({"frontend_conf": {"fs": "8k"}}, "expected .* 16000 Hz, found 8000 Hz"),
        ({"frontend_conf": {"fs": "fast"}}, "config.yaml: frontend_conf: fs: .*'fast'"),
        ({"normalize": "global_mvn"}, "`normalize: global_mvn`.*no counterpart"),
    ],
)
def test_other_espnet_models_are_refused(tmp_path, espnet_encoder, options, message):
    path = espnet_folder(tmp_path, espnet_encoder, options)
    with pytest.raises(ValueError, match=message):
        read_source(path)


# -- what becomes of them -------------------------------------------------------------


def test_the_command_makes_an_upstream_of_any_period(tmp_path, capsys):
    model = huggingface("hubert", tmp_path / "hf", normalize=False, **TINY)
    options = ["--source", str(tmp_path / "hf"), "--output_dir", str(tmp_path / "up")]
    import_upstream.main([*options, "--target_rate", "0.25"])
    assert "compressor: cif" in capsys.readouterr().out
    upstream = OFAUpstream.from_pretrained(tmp_path / "up")
    wave = speech(3.0)
    assert difference(my_states(upstream, wave), their_states(model, wave)) < TOLERANCE
    assert float(upstream(wave, lam=1.0).period_ms) == pytest.approx(80, rel=0.1)

    # A part of it, and of ours: fewer layers, the trained compressor kept.
    part = load_any(tmp_path / "up", {"layers": 1})
    same = upstream(wave, lam=1.0, num_layers=1)
    assert torch.equal(part(wave, lam=1.0).hidden_states[1], same.hidden_states[1])
    with pytest.raises(ValueError, match="has 2 layers; 3 are asked for"):
        load_any(tmp_path / "up", {"layers": 3})
    conf = {"factor": 2, "kernel": 5, "groups": 1}
    squeeze = {"compressor": "squeeze", "compressor_conf": conf, "pos_kernel": 0}
    squeezed = load_any(tmp_path / "up", squeeze)
    assert squeezed.transformer.position is None
    assert float(squeezed(wave).period_ms) == pytest.approx(40, rel=0.02)
    plain = load_any(tmp_path / "up", {"compressor": "none"})
    assert torch.equal(my_states(plain, wave)[-1], my_states(upstream, wave)[-1])


def test_wavlm_is_a_teacher_only(tmp_path):
    huggingface("wavlm", tmp_path, **TINY)
    with pytest.raises(ValueError, match="can only be a teacher"):
        load_any(tmp_path)
    teacher, other = load_teacher(tmp_path), load_teacher(tmp_path)
    other.conf["max_bucket_distance"] = 1  # of the layers, whose weights are the same
    assert teacher.fingerprint() != other.fingerprint()
    config = replace(teacher.front.config, layers=1, compressor="cif")
    student = OFAUpstream(config).eval()
    with pytest.raises(ValueError, match="WavLM's layers .* use init: front"):
        start_from_teacher(student, teacher, "layers")
    start_from_teacher(student, teacher, "front")
    wave = speech()
    wanted, _ = teacher(wave, torch.tensor([wave.shape[1]]), [0])
    torch.testing.assert_close(my_states(student, wave)[0], wanted[:, :, 0])


# -- bad input ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    huggingface("hubert", folder, normalize=False, **TINY)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config", {"model_type": "bert"}, "expected model_type .*; found 'bert'"),
        (
            "config",
            {"feat_proj_layer_norm": False},
            "feat_proj_layer_norm: True, found",
        ),
        ("config", {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "expected convolutions"),
        ("config", {"hidden_size": 32}, r"wrong shape: .*\(expected \(32, 8\), found"),
        ("config", {"num_hidden_layers": 1}, "unexpected: encoder.layers.1.attention"),
        ("config", {"num_hidden_layers": 3}, "missing: encoder.layers.2.attention.k"),
        ("preprocessor_config", {"sampling_rate": 8000}, "16000 Hz, found 8000 Hz"),
    ],
)
def test_what_does_not_fit_is_named(good, tmp_path, file, change, message):
    for path in good.iterdir():
        (tmp_path / path.name).symlink_to(path)
    path = tmp_path / f"{file}.json"
    values = {**json.loads(path.read_text()), **change}
    path.unlink()
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        read_source(tmp_path)


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_missing_and_unexpected_weights_are_both_named(tmp_path, kind):
    huggingface(kind, tmp_path, **TINY)
    state = load_file(tmp_path / "model.safetensors")
    state["encoder.layers.1.extra"] = torch.zeros(1)
    del state["encoder.layers.0.attention.k_proj.bias"]
    save_file(state, tmp_path / "model.safetensors")
    message = "missing: encoder.layers.0.attention.k_proj.bias; unexpected: .*1.extra"
    with pytest.raises(ValueError, match=message):
        load_teacher(tmp_path)


def test_files_that_are_no_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (load_any, load_teacher):
        with pytest.raises(FileNotFoundError, match=r"^\.: expected config\.json"):
            load(".")
    with pytest.raises(FileNotFoundError, match="expected a directory, a zip"):
        load_any(tmp_path / "nothing")
    (tmp_path / "a.pth").write_bytes(b"nothing like that")
    with pytest.raises(
        FileNotFoundError, match=r"Name the file itself, e\.g\. .*a\.pth"
    ):
        load_any(tmp_path)
    with pytest.raises(ValueError, match="expected a state dict"):
        load_any(tmp_path / "a.pth")
    torch.save({"model": object}, tmp_path / "a.pth")  # would run code when loaded
    with pytest.raises(ValueError, match="weights_only=True"):
        load_any(tmp_path / "a.pth")
    torch.save({"lstm.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"torchaudio's names .*found lstm\.weight"):
        load_any(tmp_path / "a.pth")


def test_layers_that_a_teacher_has_not(good):
    teacher = load_teacher(good)
    wave = speech()
    with pytest.raises(
        ValueError, match=r"expected layers from 0 .* to 2, found \[2, 3"
    ):
        teacher(wave, torch.tensor([wave.shape[1]]), [2, 3])
    with pytest.raises(ValueError, match="dtype must be float32 or bfloat16"):
        load_teacher(good, "float16")


def test_a_rounded_teacher_normalises_unrounded_waves(tmp_path):
    huggingface("hubert", tmp_path, normalize=True, **TINY, feat_extract_norm="layer")
    teacher, length = load_teacher(tmp_path, "bfloat16"), torch.tensor([19200])
    wave = 0.01 * speech()  # of which nothing is left in 1.0 + wave at 8 bits
    wanted, _ = teacher(wave, length, [2])
    found, _ = teacher(1.0 + wave, length, [2])
    assert found.dtype == torch.bfloat16
    assert (found - wanted).float().abs().mean() < 0.05


def test_teachers_stay_frozen(good):
    teacher = load_teacher(good, "bfloat16")
    model = torch.nn.Sequential(teacher).train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in model.parameters())
    wave = speech().requires_grad_()
    states, _ = teacher(wave, torch.tensor([wave.shape[1]]), [2])
    assert states.dtype == torch.bfloat16 and not states.requires_grad
    wanted, _ = load_teacher(good)(wave, torch.tensor([wave.shape[1]]), [2])
    assert (states.float() - wanted).abs().mean() < 0.05
    assert teacher.fingerprint() != load_teacher(good).fingerprint()
    assert load_teacher(good).fingerprint() == load_teacher(good).fingerprint()
    teacher, same = load_teacher(good), load_teacher(good)
    same.front.config.heads *= 2  # the same weights, other hidden states
    assert teacher.fingerprint() != same.fingerprint()
