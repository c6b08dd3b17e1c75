"""Three lambdas in a step of CTC, on frames that are extracted once."""

from __future__ import annotations

import pytest
import torch

from espnet_ofa.asr.sandwich import missed_variance


@pytest.fixture
def make(build, tiny, upstream_conf):
    drops = ("dropout_rate", "positional_dropout_rate", "attention_dropout_rate")
    encoder = {**tiny, "input_layer": "linear", **dict.fromkeys(drops, 0.0)}

    def run(model="ofa", **conf):
        shape = {**upstream_conf, "dropout": 0.0, "attention_dropout": 0.0}
        conf = {"upstream": shape, "lam": 0.5, "lam_train": "uniform", **conf}
        return build(
            model=model, frontend="ofa", frontend_conf=conf, encoder_conf=encoder
        )

    return run


def test_three_lambdas_and_one_extraction(make, batch, monkeypatch):
    model = make(sandwich=2.0, guidance=1.0, time_mask={"num": 2, "max_ms": 100})
    upstream = model.frontend.upstream
    lams, frames, extracted = [], [], []
    compress, extract = upstream.compressor.forward, upstream.extractor.forward

    def compressed(x, lengths, lam, *args):
        lams.append(lam)
        frames.append(x)
        return compress(x, lengths, lam, *args)

    monkeypatch.setattr(upstream.compressor, "forward", compressed)
    monkeypatch.setattr(
        upstream.extractor, "forward", lambda *a: extracted.append(1) or extract(*a)
    )
    loss, stats, _ = model.train()(**batch)
    loss.backward()
    assert lams[:2] == [0.0, 1.0] and 0 < lams[2] < 1 and len(lams) == 3
    assert len(extracted) == 1 and frames[0] is frames[1] is frames[2]
    assert stats["lam"] == pytest.approx(lams[2])
    assert upstream.policy.draws == 1 and model.frontend.updates == 1
    learning = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    assert 0 < stats["missed"] < 4
    assert "loss_20ms" in stats and "loss_guidance" in stats
    model(**batch)
    assert len(extracted) == 2 and model.frontend.updates == 2


def test_the_loss_is_the_mean_of_what_it_is_made_of(make, batch):
    model = make(sandwich=3.0).train()
    loss, stats, _ = model(**batch)
    parts = []
    plain = make().train()
    plain.load_state_dict(model.state_dict())
    for lam in (0.0, 1.0, float(stats["lam"])):
        with plain.frontend.policy.at(lam):
            parts.append(plain(**batch)[0])
    torch.testing.assert_close(stats["loss_20ms"], parts[0].detach())
    wanted = sum(parts) / 3 + 3.0 * stats["missed"]
    torch.testing.assert_close(loss, wanted, atol=1e-3, rtol=1e-4)


def test_both_are_pulled_to_20_ms_which_stays(make, batch, monkeypatch):
    model = make(sandwich=3.0).train()
    spread, seen = model.frontend.spread_frames, []

    def noted():
        frames, lengths = spread()
        frames.retain_grad()
        seen.append((frames, lengths))
        return seen[-1]

    monkeypatch.setattr(model.frontend, "spread_frames", noted)
    loss, stats, _ = model(**batch)
    loss.backward()
    (goal, lengths), (longest, _), (drawn, _) = seen
    assert goal.grad is None
    assert longest.grad.abs().sum() > 0 and drawn.grad.abs().sum() > 0
    pulls = [missed_variance(x, goal, lengths) for x in (longest, drawn)]
    assert float(stats["missed"]) == pytest.approx(float(sum(pulls).detach()) / 2)


def test_evaluation_is_of_one_lambda(make, batch):
    model, plain = make(sandwich=2.0).eval(), make().eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        found, wanted = model(**batch), plain(**batch)
    assert found[0] == wanted[0] and found[1].keys() == wanted[1].keys()


def test_the_first_steps_teach_the_head_alone(make, batch):
    model = make(sandwich=2.0, freeze_updates=2).train()
    for step in range(4):
        model.zero_grad()
        model(**batch)[0].backward()
        touched = model.frontend.upstream.project.weight.grad is not None
        assert touched == (step >= 2)


def test_the_longest_units_come_closer(make, batch):
    model = make(sandwich=20.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    missed = []
    for _ in range(25):
        loss, stats, _ = model(**batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        missed.append(float(stats["missed"]))
    assert min(missed[-5:]) < 0.7 * missed[0]


def test_missed_variance():
    goal, lengths = torch.randn(2, 12, 5), torch.tensor([12, 7])
    goal[1, 7:] = float("nan")  # padding
    goal = torch.where(goal.isnan(), 9.0, goal)
    rows = torch.cat([goal[0], goal[1, :7]])
    mean = rows.mean(0).expand_as(goal)
    assert missed_variance(goal, goal, lengths) == 0
    torch.testing.assert_close(missed_variance(mean, goal, lengths), torch.tensor(1.0))
    other = goal.clone()
    other[1, 7:] = -5.0
    assert missed_variance(other, goal, lengths) == 0
    torch.testing.assert_close(
        missed_variance(3 * mean, 3 * goal, lengths), torch.tensor(1.0)
    )


@pytest.mark.parametrize(
    "conf", [{"lam_train": None}, {"lam": "adaptive", "lam_train": None}]
)
def test_lambda_has_to_be_drawn(make, conf):
    with pytest.raises(ValueError, match="sandwich goes with a lambda that is drawn"):
        make(sandwich=1.0, **conf)


def test_stock_models_cannot(make, batch):
    model = make(model="espnet", sandwich=1.0).train()
    with pytest.raises(RuntimeError, match="asks for sandwich.*set `model: ofa`"):
        model(**batch)
