"""``model: ofa``: price, guidance, guard and counts; what the stock model says."""

from __future__ import annotations

import pytest
import torch

from espnet_ofa.asr.guard import cap_lam, needed_units
from espnet_ofa.asr.preencoder import OFAPreEncoder
from espnet_ofa.subsampling import compress_weights


@pytest.fixture
def conf(tiny):
    """encoder: ofa with more options."""

    def make(**more):
        return {
            "encoder": "ofa",
            "encoder_conf": {
                "encoder": "transformer",
                "encoder_conf": {**tiny, "dropout_rate": 0.0},
                "stem_dim": 16,
                **more,
            },
        }

    return make


def test_price_and_guidance_are_added_to_the_loss(build, batch, conf):
    torch.manual_seed(1)
    free = {"lam": 0.6, "compressor_conf": {"rate_gradient": True}}
    plain = build(model="ofa", **conf(**free)).eval()
    model = build(model="ofa", **conf(**free, lam_price=0.3, guidance=0.2)).eval()
    model.load_state_dict(plain.state_dict())
    base, _, _ = plain(**batch)
    loss, stats, weight = model(**batch)
    assert weight == 2
    encoder = model.encoder
    feats, lengths = model._extract_feats(batch["speech"], batch["speech_lengths"])
    out = encoder.compressor(*encoder.stem(feats, lengths), 0.6)
    frames = encoder.stem(feats, lengths)[1]
    share = sum(w[:n].sum() for w, n in zip(out.weights, frames, strict=True))
    price = 0.3 * share / frames.sum()
    torch.testing.assert_close(stats["loss_price"], price.detach()[None])
    rate = out.alpha.sum() / frames.sum()
    guidance = 0.2 * (rate - 16 / 90).abs() / (16 / 90)
    torch.testing.assert_close(stats["loss_guidance"], guidance.detach()[None])
    torch.testing.assert_close(loss, base + price + guidance)
    torch.testing.assert_close(stats["loss"], loss.detach())
    assert stats["lam"] == pytest.approx(0.6)
    torch.testing.assert_close(
        stats["period_ms"][0], 8.0 * lengths.sum() / out.lengths.sum()
    )


@pytest.mark.parametrize("guidance", [0.0, 0.2])
def test_the_anchor_leaves_the_rate_to_guidance(build, batch, conf, guidance):
    model = build(model="ofa", **conf(lam=0.6, guidance=guidance)).train()
    predictor = model.encoder.compressor.predictor
    with torch.no_grad():
        predictor.out.bias += 1.0  # far more units than wanted
    model(**batch)
    assert (predictor.offset < 0) == (guidance == 0)


def test_price_moves_a_learned_lambda_up(build, batch, conf):
    model = build(model="ofa", **conf(lam="adaptive", lam_price=1000.0)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = model.encoder.policy.learnable.value().item()
    for _ in range(5):
        optimizer.zero_grad()
        model(**batch)[0].sum().backward()
        optimizer.step()
    learned = model.encoder.policy.learnable
    assert before + 0.02 < learned.value().item() < 1.0
    model.eval()
    assert model(**batch)[1]["lam"].item() == pytest.approx(learned.value().item())


def test_a_price_on_what_cannot_move_is_an_error(build, conf):
    with pytest.raises(ValueError, match="lam_price has nothing to act on"):
        build(model="ofa", **conf(lam=0.6, lam_price=0.3))


@pytest.mark.parametrize(
    "wish",
    [
        {"lam_price": 0.1, "compressor_conf": {"rate_gradient": True}},
        {"guidance": 0.1},
        {"ctc_guard": True},
    ],
)
def test_the_stock_model_cannot_and_says_so(build, batch, conf, wish):
    model = build(**conf(lam=0.5, **wish)).train()
    with pytest.raises(RuntimeError, match=f"{next(iter(wish))}.*`model: ofa`"):
        model(**batch)
    model.eval()
    model.encode(batch["speech"], batch["speech_lengths"])  # decoding is fine


def test_lambda_works_in_full_under_the_stock_model(build, batch, conf):
    model = build(**conf(lam=0.2, lam_train="uniform")).train()
    drawn = set()
    for _ in range(3):
        model(**batch)[0].sum().backward()
        drawn.add(float(model.encoder.stats()["lam"]))
    assert len(drawn) == 3
    model = build(**conf(lam="adaptive")).train()
    model(**batch)[0].sum().backward()
    assert model.encoder.policy.learnable.raw.grad.abs() > 0


def test_needs_an_adapter_and_ctc_for_the_guard(build, conf):
    with pytest.raises(ValueError, match="frontend, preencoder or encoder named ofa"):
        build(model="ofa")
    with pytest.raises(ValueError, match="ctc_guard: true needs CTC"):
        build(
            model="ofa",
            model_conf={"ctc_weight": 0.0},
            decoder="transformer",
            decoder_conf={"num_blocks": 1, "linear_units": 16, "attention_heads": 2},
            **conf(lam=0.5, ctc_guard=True),
        )


def test_needed_units_count_repeats():
    for padding in (-1, 0, 4):
        text = torch.tensor(
            [[2, 2, 2, 3], [4, 4, padding, padding], [4] + 3 * [padding]]
        )
        assert needed_units(text, torch.tensor([4, 2, 1])).tolist() == [6, 3, 1]
    assert needed_units(text[:, :0], torch.tensor([0, 0, 0])).tolist() == [0, 0, 0]


def test_infeasible_utterances_are_counted(build, batch, conf):
    model = build(model="ofa", **conf(lam=1.0)).eval()
    _, stats, _ = model(**batch)
    assert stats["infeasible"] == 0
    # Half a second at about 90 ms: some 6 units, fewer than 8 equal labels need.
    text = torch.full((2, 8), 2)
    _, stats, _ = model(**{**batch, "text": text, "text_lengths": torch.tensor([1, 8])})
    assert stats["infeasible"] == 0.5


@pytest.mark.parametrize("lam", [0.3, 0.9, 1.0, 1.6])
def test_cap_leaves_exactly_enough_mass(lam):
    alpha = torch.rand(5, 50) * 0.4
    lengths = torch.tensor([50, 50, 40, 30, 10])
    alpha = alpha * (torch.arange(50) < lengths[:, None])
    needed = torch.tensor([2, 30, 12, 29, 15])
    capped = cap_lam(lam, alpha, lengths, needed)
    assert (capped <= lam + 1e-6).all() and (capped >= 0).all()
    mass = compress_weights(alpha, capped)
    mass = torch.stack([m[:n].sum() for m, n in zip(mass, lengths, strict=True)])
    free = torch.stack(
        [
            m[:n].sum()
            for m, n in zip(compress_weights(alpha, lam), lengths, strict=True)
        ]
    )
    for b in range(4):
        if free[b] >= needed[b] + 0.02:
            assert capped[b] == pytest.approx(lam)  # untouched
        else:
            assert mass[b] == pytest.approx(float(needed[b]), abs=0.02)
    assert capped[4] == 0.0  # 10 frames can never be 15 units


@pytest.mark.parametrize("role", ["encoder", "preencoder", "frontend"])
def test_guard_makes_utterances_feasible_in_training_only(
    build, batch, conf, upstream_conf, role
):
    guard = {"lam": 1.0, "ctc_guard": True}
    choices = {
        "encoder": conf(**guard),
        "preencoder": {
            "preencoder": "ofa",
            "preencoder_conf": {"input_size": 80, **guard},
        },
        "frontend": {
            "frontend": "ofa",
            "frontend_conf": {"upstream": upstream_conf, **guard},
        },
    }
    model = build(model="ofa", **choices[role])
    text = torch.full((2, 8), 2)
    batch = {**batch, "text": text, "text_lengths": torch.tensor([1, 8])}
    model.train()
    _, stats, _ = model(**batch)
    assert stats["infeasible"] == 0.0 and stats["guarded"] == 0.5
    model.eval()
    _, stats, _ = model(**batch)
    assert stats["infeasible"] == 0.5 and "guarded" not in stats


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_guard_leaves_as_many_units_as_are_needed(threshold):
    conf = {"threshold": threshold, "tail_threshold": 1.0}  # nothing is rounded up
    guarded = OFAPreEncoder(8, lam=1.0, ctc_guard=True, compressor_conf=conf).train()
    guarded.claim()
    guarded.begin(torch.tensor([30, 1] * 8))
    _, lengths = guarded(torch.randn(16, 120, 8), torch.tensor([120, 71] * 8))
    assert (lengths[::2] == 30).all() and guarded.stats()["guarded"] == 0.5


def test_guard_counts_what_ctc_gets(build, batch, upstream_conf):
    def model(**conf):
        conf = {"upstream": upstream_conf, "guidance": 0.1, **conf}
        return build(model="ofa", frontend="ofa", frontend_conf=conf).train()

    merge = {"layers": [0], "ratio": 0.3}
    with pytest.raises(ValueError, match="does not go with layers that merge"):
        model(lam=1.0, ctc_guard=True, merge=merge)
    with pytest.raises(ValueError, match="lam: adaptive with CTC, which needs it"):
        model(lam="adaptive", merge=merge)
    with pytest.raises(ValueError, match="frames of 20 ms: remove ctc_guard"):
        model(lam=1.0, ctc_guard=True, upsample=True)
    # Eight labels are too many for its units, not for its frames.
    many = {**batch, "text": torch.full((2, 8), 2)}
    many["text_lengths"] = torch.tensor([8, 8])
    high = {"lam": "adaptive", "lam_conf": {"init": 0.95}}
    stats = model(**high, upsample=True)(**many)[1]
    assert "guarded" not in stats and stats["infeasible"] == 0.0
    assert model(**high)(**many)[1]["guarded"] > 0.0


@pytest.mark.parametrize("encoder", ["rnn", "vgg_rnn"])
def test_rnn_wants_the_longest_first(build, upstream_conf, encoder):
    confs = {"frontend_conf": {"upstream": upstream_conf, "lam": 0.5}}
    with pytest.raises(ValueError, match="need not have the most units"):
        build(frontend="ofa", **confs, encoder=encoder, encoder_conf={})


def test_guard_keeps_the_gradient_of_lambda(build, batch, conf):
    model = build(model="ofa", **conf(lam="adaptive", ctc_guard=True)).train()
    model(**batch)[0].sum().backward()
    assert model.encoder.policy.learnable.raw.grad.abs() > 0


def test_no_graph_outlives_its_batch(build, batch, conf):
    for model_name in ("ofa", "espnet"):
        model = build(model=model_name, **conf(lam="adaptive")).train()
        model(**batch)[0].sum().backward()
        held = [v for v in vars(model.encoder).values() if torch.is_tensor(v)]
        held += model.encoder.stats().values()
        assert len(held) >= 2 and not any(v.requires_grad for v in held)
        assert model.encoder._graph is None


@pytest.mark.parametrize("name", ["espnet", "ofa"])
def test_characters_said_on_padding_are_no_errors(build, batch, conf, name):
    """ESPnet counts them, so that a validation score would depend on batches."""
    torch.manual_seed(0)
    model = build(model=name, **conf(lam=0.3)).eval()
    model.ctc.ctc_lo.weight.data.mul_(10)  # says something everywhere
    both = {**batch, "text": batch["text"][:1].repeat(2, 1)}
    both["text_lengths"] = batch["text_lengths"][:1].repeat(2)
    together = model(**both)[1]["cer_ctc"].item()
    alone = []
    for row in range(2):
        one = {key: value[row : row + 1] for key, value in both.items()}
        alone.append(model(**one)[1]["cer_ctc"].item())
    assert (together == pytest.approx(sum(alone) / 2)) == (name == "ofa")
