"""Pooling by duration: what it is the mean of, and where its durations come from."""

from __future__ import annotations

import copy
from unittest.mock import Mock

import pytest
import torch
from espnet2.tasks.cls import CLSTask
from espnet2.tasks.spk import SpeakerTask
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_ofa import set_lam
from espnet_ofa.asr.pooling import OFADecoder, OFAPooling, pool
from espnet_ofa.cif import expand, integrate_and_fire

CLASSES = ["a", "b", "c", "<unk>"]


@given(
    lam=st.floats(0, 1),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_mean_by_duration_is_the_mean_over_frames(lam, lengths, seed):
    rng = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths), 3, generator=rng).double()
    weights = 1 - lam * torch.rand(frames.shape[:2], generator=rng)
    out = integrate_and_fire(frames, weights, torch.tensor(lengths))
    expanded = expand(out.units, out.durations, max(lengths))
    pooled = pool(out.units, out.durations, std=True)
    for b, length in enumerate(lengths):
        found = expanded[b, :length]
        torch.testing.assert_close(pooled[b, :3], found.mean(0), atol=1e-5, rtol=1e-5)
        # A frame that two units share is their blend there, so it varies no more.
        most = found.var(0, correction=0).clamp(min=1e-6).sqrt()
        assert (pooled[b, 3:] >= most - 1e-5).all()


def test_plain_and_weighted_are_one_at_lambda_0_and_differ_later():
    frames = torch.randn(2, 20, 4)
    lengths = torch.tensor([20, 7])
    mask = torch.arange(20) < lengths[:, None]
    for std in (False, True):
        units = integrate_and_fire(frames, torch.ones(2, 20), lengths)
        torch.testing.assert_close(
            pool(units.units, units.durations, std), pool(frames, mask.float(), std)
        )
    out = integrate_and_fire(frames, torch.rand(2, 20), lengths)
    inside = (torch.arange(out.units.shape[1]) < out.lengths[:, None]).float()
    apart = pool(out.units, out.durations) - pool(out.units, inside)
    assert apart.abs().max() > 1e-3


@pytest.mark.parametrize("std", [False, True])
def test_padding_does_not_leak_and_gradients_are_right(std):
    torch.manual_seed(0)
    units = torch.randn(1, 5, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 5, dtype=torch.float64) + 0.1
    assert torch.autograd.gradcheck(lambda x: pool(x, weights, std), (units,))
    padded = torch.cat([units, torch.full((1, 3, 2), torch.inf)], 1)
    more = torch.cat([weights, torch.zeros(1, 3)], 1)
    torch.testing.assert_close(pool(padded, more, std), pool(units, weights, std))
    one = torch.ones(1, 1, 2, requires_grad=True)  # a single unit varies not at all
    pool(one, torch.ones(1, 1), std).sum().backward()
    assert one.grad is not None and torch.isfinite(one.grad).all()


def _build_cls(**conf):
    args = CLSTask.get_parser().parse_args(["--output_dir", "x"])
    args.token_list = list(CLASSES)
    for key, value in conf.items():
        assert hasattr(args, key), key
        setattr(args, key, value)
    return CLSTask.build_model(args)


@pytest.fixture
def parts(tiny, upstream_conf):
    """Where compression may be; everything else of the config."""
    pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
    linear = {**tiny, "input_layer": "linear"}
    inner = {"encoder": "transformer", "encoder_conf": linear}
    base = {"normalize": None, **inner}
    return {
        "frontend": {
            **base,
            "frontend": "ofa",
            "frontend_conf": {"upstream": upstream_conf, "lam": 0.8},
        },
        "preencoder": {
            **base,
            "preencoder": "ofa",
            "preencoder_conf": {"input_size": 80, "lam": 0.8},
        },
        "encoder": {
            "normalize": None,
            "encoder": "ofa",
            "encoder_conf": {**inner, "lam": 0.8},
        },
    }


def _batch():
    return {
        "speech": torch.randn(2, 16000),
        "speech_lengths": torch.tensor([16000, 9000]),
        "label": torch.tensor([[0], [2]]),
        "label_lengths": torch.tensor([1, 1]),
    }


@pytest.mark.parametrize("role", ["frontend", "preencoder", "encoder"])
def test_classification_by_duration(role, parts):
    model = _build_cls(**parts[role], decoder="ofa")
    assert not [n for n, _ in model.named_parameters() if "_source" in n]
    batch = _batch()
    loss, stats, _ = model.train()(**batch)
    loss.backward()
    assert model.decoder.linear_out.weight.grad.abs().sum() > 0 and "acc" in stats
    model.eval()
    with torch.no_grad():
        units, lengths = model.encode(batch["speech"], batch["speech_lengths"])
        assert lengths[0] > 1
        adapter = getattr(model, role)
        durations = adapter.take_durations()
        expected = model.decoder.linear_out(pool(units, durations))
        adapter._durations = durations
        torch.testing.assert_close(model.decoder(units, lengths), expected)
        # Alone and in a padded batch, through ESPnet's own inference.
        alone = model.score(batch["speech"][1:, :9000])
        # ESPnet's default frontend reflects the end of the audio, or sees padding.
        atol = 1e-5 if role == "frontend" else 1e-3
        torch.testing.assert_close(alone, expected[1:].softmax(-1), atol=atol, rtol=0)


def test_a_copy_pools_by_its_own_durations(parts):
    model = _build_cls(**parts["frontend"], decoder="ofa").eval()
    other = copy.deepcopy(model)
    set_lam(other, 0.0)
    batch = _batch()
    args = batch["speech"], batch["speech_lengths"]
    with torch.no_grad():
        first, second = model.encode(*args), other.encode(*args)
        assert first[0].shape != second[0].shape
        model.decoder(*first), other.decoder(*second)


def test_equal_weights_are_espnets_mean(parts):
    conf = parts["frontend"]
    ours = _build_cls(**conf, decoder="ofa", decoder_conf={"weights": "equal"})
    theirs = _build_cls(**conf, decoder="linear")
    state = theirs.state_dict()
    ours.load_state_dict(state)
    batch = _batch()
    batch.pop("label"), batch.pop("label_lengths")
    with torch.no_grad():
        out = theirs.eval().encode(**batch)
        torch.testing.assert_close(ours.eval().decoder(*out), theirs.decoder(*out))


def test_without_durations_it_says_so(parts, tiny):
    base = {"encoder": "transformer", "encoder_conf": {**tiny, "input_layer": "linear"}}
    with pytest.raises(ValueError, match="needs a frontend, preencoder or encoder"):
        _build_cls(**base, decoder="ofa")
    _build_cls(**base, decoder="ofa", decoder_conf={"weights": "equal"})
    with pytest.raises(ValueError, match="weights must be one of duration, equal"):
        _build_cls(**base, decoder="ofa", decoder_conf={"weights": "mean"})
    with pytest.raises(RuntimeError, match="attach"):
        OFADecoder(3, 4)(torch.randn(1, 2, 4), torch.tensor([2]))


def test_units_that_are_not_the_adapters_are_refused(parts):
    model = _build_cls(**parts["frontend"], decoder="ofa").eval()
    batch = _batch()
    with torch.no_grad():
        units, lengths = model.encode(batch["speech"], batch["speech_lengths"])
        with pytest.raises(ValueError, match=r"frontend: ofa made .* subsamples or pa"):
            model.decoder(units[:, ::2], (lengths + 1) // 2)
        with pytest.raises(RuntimeError, match="has not run since"):
            model.decoder(units, lengths)


def test_durations_under_data_parallel_are_refused():
    """A replica would take those of the original's frontend."""
    pooling = OFADecoder(2, 4).pooling
    pooling.attach(Mock())
    pooling._is_replica = True  # as torch.nn.parallel.replicate marks them
    with pytest.raises(RuntimeError, match="--multiprocessing_distributed true"):
        pooling(torch.zeros(1, 2, 4), torch.tensor([2]))


@pytest.mark.parametrize("std", [False, True])
def test_speaker_task(upstream_conf, std):
    args = SpeakerTask.get_parser().parse_args(["--output_dir", "x"])
    conf = {
        "frontend": "ofa",
        "frontend_conf": {"upstream": upstream_conf, "lam": 0.8},
        "encoder": "identity",
        "pooling": "ofa",
        "pooling_conf": {"std": std},
        "projector": "rawnet3",
        "projector_conf": {"output_size": 8},
        "loss": "softmax",
        "spk_num": 2,
    }
    for key, value in conf.items():
        assert hasattr(args, key), key
        setattr(args, key, value)
    model = SpeakerTask.build_model(args)
    assert isinstance(model.pooling, OFAPooling)
    batch = _batch()
    speech = {k: batch[k] for k in ("speech", "speech_lengths")}
    loss, stats, _ = model(**speech, spk_labels=torch.tensor([[0], [1]]))
    loss.backward()
    assert "accuracy" in stats
    model.eval()
    with torch.no_grad():
        together = model(**speech, extract_embd=True)
        alone = model(speech["speech"][1:, :9000], extract_embd=True)
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def _frontend_conf(parts, **more):
    """The frontend's options with some replaced."""
    return {"upstream": parts["frontend"]["frontend_conf"]["upstream"], **more}


def _build_with_our_task(parts, **frontend):
    from espnet_ofa.tasks.cls import OFACLSTask

    conf = {**parts["frontend"], "decoder": "ofa", "model": "ofa"}
    conf["frontend_conf"] = _frontend_conf(parts, **frontend)
    args = OFACLSTask.get_parser().parse_args(["--output_dir", "x", "--model", "ofa"])
    args.token_list = list(CLASSES)
    vars(args).update(conf)
    return OFACLSTask.build_model(args)


def test_a_price_on_units_reaches_lambda(parts):
    price = {"lam": "adaptive", "lam_price": 1000.0}
    model = _build_with_our_task(parts, **price).train()
    loss, stats, _ = model(**_batch())
    loss.backward()
    (raw,) = [p for n, p in model.named_parameters() if n.endswith("learnable.raw")]
    assert raw.grad is not None and raw.grad < 0  # a longer period is cheaper
    without = stats["loss"] - stats["loss_price"]
    assert 0 < without < 10 < stats["loss_price"] and stats["period_ms"] > 20
    # What is trained loads into ESPnet's own model, and only what fits into ours.
    state = model.state_dict()
    stock = _build_cls(
        **{**parts["frontend"], "frontend_conf": _frontend_conf(parts, **price)},
        decoder="ofa",
    )
    stock.load_state_dict(state)
    with pytest.raises(RuntimeError, match="set `model: ofa`"):
        stock.train()(**_batch())
    del state["decoder.linear_out.bias"]
    with pytest.raises(ValueError, match="missing: decoder.linear_out.bias"):
        model.load_state_dict(state, strict=False)


def test_guidance_reaches_alpha(parts):
    model = _build_with_our_task(parts, lam=0.8, guidance=5.0).eval()
    batch, predictor = _batch(), model.frontend.upstream.compressor.predictor
    predictor.out.bias.data += 1.0  # more units than wanted
    gradients = []
    for guidance in (5.0, 0.0):
        model.frontend.guidance = guidance
        model(**batch)[0].backward()
        gradients.append(predictor.out.bias.grad.item())
        model.zero_grad()
    out = model.frontend.upstream(batch["speech"], batch["speech_lengths"])
    slope = (out.alpha * (1 - out.alpha)).sum() / out.frame_lengths.sum()
    wanted = 5.0 * slope.item() / predictor.target_rate
    assert gradients[0] - gradients[1] == pytest.approx(wanted, rel=1e-3)


def test_no_guard_without_ctc(parts):
    with pytest.raises(ValueError, match="ctc_guard: true needs CTC"):
        _build_with_our_task(parts, lam=0.5, ctc_guard=True)
    with pytest.raises(ValueError, match="sandwich is for ASR"):
        _build_with_our_task(parts, lam=0.5, lam_train="uniform", sandwich=1.0)
