"""A learned lambda follows the slope of its task's loss, whatever the task."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.tasks.cls import OFACLSTask

STARTS = 0.2, 0.643, 0.95
DECODER = {
    "decoder": "transformer",
    "decoder_conf": {"num_blocks": 1, "linear_units": 16, "attention_heads": 2},
}
SHARE = 0.45  # of frames kept, where the planted loss is least


@pytest.fixture
def make(build, tiny):
    """(kind, lam_conf, **more) -> a model whose encoder is the adapter."""

    def run(kind: str, lam_conf: dict, **more) -> nn.Module:
        first = {"init_param": more.pop("init_param", ["first.pth"])}
        inner = {**tiny, "input_layer": "linear", "dropout_rate": 0.0}
        conf = {
            "encoder": "ofa",
            "encoder_conf": {
                "encoder": "transformer",
                "encoder_conf": inner,
                "stem_dim": 16,
                "lam": "adaptive",
                "lam_conf": lam_conf,
                **more,
            },
        }
        if kind == "ctc":
            return build(model="ofa", **conf, **first)
        if kind == "s2s":
            conf |= {"model_conf": {"ctc_weight": 0.3}, **DECODER, **first}
            return build(model="ofa", **conf)
        pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
        args = OFACLSTask.get_parser().parse_args(["--output_dir", "x"])
        args.token_list = ["a", "b", "c", "<unk>"]
        for key, value in {
            "model": "ofa", "normalize": None, "decoder": "ofa", **conf, **first
        }.items():  # fmt: skip
            setattr(args, key, value)
        return OFACLSTask.build_model(args)

    return run


def batch_of(kind: str, samples: int = 6400) -> dict[str, torch.Tensor]:
    batch = {
        "speech": torch.randn(2, samples),
        "speech_lengths": torch.tensor([samples, samples * 3 // 4]),
    }
    names = ("label", "label_lengths") if kind == "cls" else ("text", "text_lengths")
    values = torch.tensor([[2], [1]]), torch.tensor([1, 1])
    return batch | dict(zip(names, values, strict=True))


def plant(adapter: Adapter, monkeypatch) -> None:
    """Add a loss that is least where ``SHARE`` of the frames are kept, and know it."""

    def losses():
        assert adapter._graph is not None
        _, weights, lengths = adapter._graph
        mask = valid_mask(lengths, weights.shape[1])
        share = (weights * mask).sum() / lengths.sum()
        return {"loss_planted": 3000 * (share.detach() - SHARE).square()}

    monkeypatch.setattr(adapter, "aux_losses", losses)


@pytest.mark.parametrize("kind", ["ctc", "s2s", "cls"])
def test_three_starts_meet_at_a_planted_optimum(make, kind, monkeypatch):
    periods = []
    for start in STARTS:
        torch.manual_seed(0)
        model = make(kind, {"init": start}).train()
        plant(model.encoder, monkeypatch)
        raw = model.encoder.policy.learnable.raw
        optimizer = torch.optim.Adam([raw], lr=3e-3, betas=(0.5, 0.9))
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 30)
        for _ in range(30):
            optimizer.zero_grad()
            model(**batch_of(kind))[0].sum().backward()
            optimizer.step()
            decay.step()
        model.eval()
        stats = model(**batch_of(kind, 48000))[1]
        periods.append(float(stats["period_ms"]))
    assert max(periods) - min(periods) < 5.0
    wanted = 16.0 / SHARE  # the stem halves frames of 8 ms
    assert all(abs(period - wanted) < 5.0 for period in periods), (periods, wanted)


def test_a_step_looks_twice_and_learns_from_one(make, monkeypatch):
    """Both looks are at the same distance from lambda; the statistics know lambda."""
    model = make("ctc", {"init": 0.6, "window": 0.2}).train()
    adapter, seen = model.encoder, []
    forward = adapter.compressor.forward

    def spy(frames, lengths, lam: Any, *rest):
        alpha = torch.full(frames.shape[:2], 0.2)
        value: Any = lam(alpha, lengths) if callable(lam) else lam  # guarded
        seen.append((value[0].item(), torch.is_grad_enabled()))
        return forward(frames, lengths, lam, *rest)

    monkeypatch.setattr(adapter.compressor, "forward", spy)
    loss, stats, _ = model(**batch_of("ctc"))
    (first, graph), (second, main) = seen
    assert (graph, main) == (False, True)
    assert first + second == pytest.approx(1.2, abs=1e-5) and abs(first - 0.6) < 0.2
    assert stats["lam"].item() == pytest.approx(0.6, abs=1e-5)
    loss.sum().backward()
    learned = adapter.policy.learnable
    share = learned.value().item()
    slope = stats["lam_slope"].item() * share * (1 - share)
    assert learned.raw.grad.item() == pytest.approx(slope, rel=1e-4)
    model.eval()
    model(**batch_of("ctc"))  # validation has one lambda
    assert seen[2][0] == pytest.approx(0.6, abs=1e-5) and len(seen) == 3
    assert adapter.policy.draws == 1  # one draw a step


@pytest.mark.parametrize("kind", ["ctc", "cls"])
def test_both_looks_see_the_same_draws(make, kind, monkeypatch):
    """At one lambda there is no difference; batch norms count a step once."""
    model = make(kind, {"init": 0.6}).train()
    norm = nn.BatchNorm1d(16, momentum=None)
    inner = model.encoder.inner
    inner.after_norm = nn.Sequential(inner.after_norm, nn.Dropout(0.5), _Rows(norm))
    once = _Rows(nn.BatchNorm1d(16, momentum=None))
    seen = []
    inner.after_norm[1].register_forward_hook(
        lambda module, args, out: seen.append(out.detach())
    )
    monkeypatch.setattr(model.encoder.policy, "draw", lambda: 0.5)  # no distance
    model(**batch_of(kind))
    first, second = seen
    assert first.equal(second) and (first == 0).any()
    once(second)
    assert norm.running_mean.allclose(once.norm.running_mean)
    assert norm.num_batches_tracked == 1
    model(**batch_of(kind))
    assert not seen[2][:, :1].equal(second[:, :1])  # the next step draws anew


class _Rows(nn.Module):
    """A batch norm over the last axis."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


def test_an_infeasible_utterance_is_no_reward(make):
    """Its loss is zero to ESPnet: lambda would go where labels do not fit."""
    ctc = make("ctc", {"init": 0.9}).train()
    batch = batch_of("ctc") | {
        "text": torch.tensor([[2, 3] * 8, [3, 2] * 8]),
        "text_lengths": torch.tensor([16, 16]),
    }
    stats = ctc(**batch)[1]
    assert stats["guarded"] == 1.0 and stats["infeasible"] == 0.0


def test_without_our_model_there_is_a_warning(build, tiny, caplog):
    conf = {"encoder": "transformer", "encoder_conf": {**tiny, "input_layer": "linear"}}
    build(encoder="ofa", encoder_conf={**conf, "lam": "adaptive"})
    assert "lambda has only the derivative" in caplog.text


def test_a_frozen_lambda_costs_no_second_look(make):
    model = make("ctc", {"init": 0.6}).train()
    model.encoder.policy.requires_grad_(False)
    stats = model(**batch_of("ctc"))[1]
    assert "lam_slope" not in stats and stats["lam"].item() == pytest.approx(0.6)


def losses_with_dropout(model: nn.Module, batch: dict, monkeypatch) -> set[float]:
    """Of three training steps that look at the same lambdas."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(model.encoder.policy, "draw", lambda: 0.75)
        return {float(model(**batch)[1]["loss"]) for _ in range(3)}


@pytest.mark.parametrize("kind", ["ctc", "s2s", "cls"])
def test_lambda_alone_learns(make, kind, monkeypatch):
    """It goes to the optimum; no weight and no buffer changes, nothing is random."""
    batch = batch_of(kind)
    together = make(kind, {"init": 0.2}).train()
    assert len(losses_with_dropout(together, batch, monkeypatch)) == 3
    model = make(kind, {"init": 0.2, "alone": True}).train()
    assert len(losses_with_dropout(model, batch, monkeypatch)) == 1
    plant(model.encoder, monkeypatch)
    policy = model.encoder.policy
    raw = policy.learnable.raw
    assert [p is raw for p in model.parameters() if p.requires_grad] == [True]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.5, 0.9))
    for _ in range(30):
        optimizer.zero_grad()
        model(**batch)[0].sum().backward()
        optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not v.equal(before[k])}
    mine = "encoder.policy."
    assert changed == {f"{mine}draws", f"{mine}learnable.raw"}
    assert 0.5 < policy.learnable.value().item() < 0.9
    assert model.eval()(**batch)[1]["lam"].item() == policy.learnable.value().item()


@pytest.mark.parametrize("kind", ["ctc", "s2s"])
def test_lambda_alone_counts_no_errors(make, kind):
    """ESPnet would do so in each step, twice, and for a transducer search for it."""
    model = make(kind, {"alone": True}).train()
    model.error_calculator = counter = Mock(return_value=(0.5, 0.5))
    model(**batch_of(kind))
    assert not counter.called and model.error_calculator is counter
    model.eval()(**batch_of(kind))
    assert counter.called


def test_lambda_alone_needs_a_finished_model(make, build, tiny):
    for kind in ("ctc", "cls"):
        with pytest.raises(ValueError, match=r"this one is random.*--init_param FILE"):
            make(kind, {"alone": True}, init_param=[])
    frozen = make("ctc", {"alone": True}).train()
    frozen.encoder.requires_grad_(False)  # --freeze_param encoder
    with pytest.raises(ValueError, match="nothing learns: .*lambda is frozen, too"):
        frozen(**batch_of("ctc"))
    conf = {"encoder": "transformer", "encoder_conf": {**tiny, "input_layer": "linear"}}
    conf |= {"lam": "adaptive", "lam_conf": {"alone": True}}
    lora = {"use_adapter": True, "init_param": ["first.pth"]}
    with pytest.raises(ValueError, match="nothing for ESPnet's use_adapter"):
        build(model="ofa", encoder="ofa", encoder_conf=conf, **lora)
    stock = build(encoder="ofa", encoder_conf=conf).train()
    with pytest.raises(RuntimeError, match=r"lam_conf\.alone.*set `model: ofa`"):
        stock(**batch_of("ctc"))


def test_lambda_alone_sees_no_masks(build, upstream_conf):
    """Masks of time are for weights that learn."""
    torch.manual_seed(0)
    conf = {"upstream": upstream_conf, "time_mask": {"num": 4, "max_ms": 200}}
    batch = batch_of("ctc", 16000)
    same = {}
    for alone in (False, True):
        lam = {"lam": "adaptive", "lam_conf": {"alone": alone}}
        adapter = {"frontend": "ofa", "frontend_conf": conf | lam}
        model = build(model="ofa", init_param=["first.pth"], **adapter).train()
        wave = batch["speech"], batch["speech_lengths"]
        first, second = (model.frontend._extract(*wave)[0] for _ in range(2))
        same[alone] = first.equal(second)
    assert same == {False: False, True: True}
