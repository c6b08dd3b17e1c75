"""Told of its rate, an upstream starts as it was, and stays the same in any company."""

import pytest
import torch

from espnet_ofa import set_lam
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.condition import RateCondition
from espnet_ofa.upstream.importers import load_any

SMALL = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 16, "mels": 20, "stem_layers": 1, "stem_kernel": 3},
    "dim": 24,
    "layers": 2,
    "heads": 4,
    "ff_dim": 32,
    "pos_kernel": 6,
    "pos_groups": 2,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
BOTH = ["durations", "lam"]
SAMPLES = [16000, 9999, 700]
LAMS = [0.0, 0.5, 1.0, 1.4]


def make(condition=(), **conf):
    torch.manual_seed(0)
    config = UpstreamConfig(**{**SMALL, **conf, "condition": list(condition)})
    return OFAUpstream(config, LamPolicy(0.5)).eval()


def trained(condition=BOTH, **conf):
    """As if it had learned something about the rate."""
    upstream = make(condition, **conf)
    torch.manual_seed(1)
    out = condition_of(upstream).out
    torch.nn.init.normal_(out.weight, std=0.3)
    torch.nn.init.normal_(out.bias, std=0.3)
    return upstream


def condition_of(upstream):
    assert isinstance(upstream.condition, RateCondition)
    return upstream.condition


def audio():
    torch.manual_seed(2)
    return torch.randn(len(SAMPLES), max(SAMPLES)), torch.tensor(SAMPLES)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("condition", [["durations"], ["lam"], BOTH])
def test_switched_on_it_changes_nothing(condition, norm_first):
    upstream = make(norm_first=norm_first)
    before = [upstream(*audio(), lam=lam).hidden_states for lam in LAMS]
    upstream.set_condition(condition)
    assert upstream.config.condition == condition
    for lam, states in zip(LAMS, before, strict=True):
        assert same(states, upstream(*audio(), lam=lam).hidden_states)


@pytest.mark.parametrize("condition", [["durations"], ["lam"], BOTH])
@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("gradients", [False, True])  # without, nothing is padded
def test_an_utterance_encodes_the_same_alone_and_in_a_batch(condition, lam, gradients):
    upstream, (wave, lengths) = trained(condition), audio()
    with torch.set_grad_enabled(gradients):
        batch = upstream(wave, lengths, lam=lam)
        for row, n in enumerate(SAMPLES):
            alone = upstream(wave[row : row + 1, :n], lam=lam)
            u = int(alone.lengths)
            for a, b in zip(alone.hidden_states, batch.hidden_states, strict=True):
                torch.testing.assert_close(b[row, :u], a[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("condition", [["durations"], ["lam"]])
def test_what_was_learned_depends_on_the_rate(condition):
    plain, told = make(), trained(condition)
    moves = []
    for lam in LAMS:
        a, b = (x(*audio(), lam=lam).hidden_states[0][0, :4] for x in (plain, told))
        moves.append(b - a)
    for one, other in zip(moves, moves[1:], strict=False):
        assert (one - other).abs().max() > 1e-3


def test_all_forms_of_lambda_are_one():
    told, (wave, lengths) = trained(["lam"]), audio()
    want = told(wave, lengths, lam=0.7).hidden_states
    for lam in (torch.tensor(0.7), torch.tensor([0.7]), torch.full((3,), 0.7)):
        states = told(wave, lengths, lam=lam).hidden_states
        for a, b in zip(states, want, strict=True):
            torch.testing.assert_close(a, b)
    each = told(wave, lengths, lam=torch.tensor([0.7, 0.1, 1.0]))
    alone = told(wave[1:2, : SAMPLES[1]], lam=0.1)
    torch.testing.assert_close(
        each.hidden_states[-1][1, : int(alone.lengths)],
        alone.hidden_states[-1][0],
        atol=1e-4,
        rtol=1e-4,
    )
    set_lam(told, 0.7)
    assert same(told(wave, lengths).hidden_states, want)


def test_lambda_gets_no_gradient_through_it():
    lam = torch.tensor([0.3], requires_grad=True)
    units = torch.randn(1, 3, 24, requires_grad=True)
    told = condition_of(trained())
    told(units, torch.ones(1, 3), lam).sum().backward()
    assert lam.grad is None and units.grad is not None


def test_every_parameter_learns_from_the_second_step_on():
    upstream = make(BOTH).train()
    optimizer = torch.optim.SGD(upstream.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        upstream(*audio(), lam=0.6).hidden_states[-1].square().sum().backward()
        optimizer.step()
    condition = condition_of(upstream)
    assert all(p.grad.abs().max() > 0 for p in condition.parameters())


def test_it_waits_for_nobody(waits):
    upstream = trained().train()
    wave, lengths = audio()
    waits.clear()
    upstream(wave, lengths, lam=0.6).hidden_states[-1].sum().backward()
    assert waits == ["tolist"]  # the compressor's


def test_what_was_learned_is_saved_and_kept(tmp_path):
    told = trained()
    told.save_pretrained(tmp_path)
    again = OFAUpstream.from_pretrained(tmp_path)
    want = told(*audio(), lam=0.6).hidden_states
    assert same(again(*audio(), lam=0.6).hidden_states, want)
    again.set_condition(["lam", "durations"])  # as it is
    assert same(again(*audio(), lam=0.6).hidden_states, want)


def test_an_old_model_goes_on_with_a_new_condition(tmp_path):
    old = make()
    old.save_pretrained(tmp_path)
    new = load_any(tmp_path, {"condition": ["durations"]})
    assert new.condition is not None
    want = old(*audio(), lam=0.6).hidden_states
    assert same(new(*audio(), lam=0.6).hidden_states, want)
    config = UpstreamConfig.from_yaml(tmp_path / "config.yaml")
    config.condition = ["lam"]
    config.to_yaml(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="missing: condition.hidden.bias"):
        OFAUpstream.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2), ("int8", 3e-2)]
)
def test_optimised(dtype, tolerance):
    with torch.no_grad():
        want = trained(dim=64)(*audio(), lam=0.6)
        got = trained(dim=64).optimize("cpu", dtype)(*audio(), lam=0.6)
    assert torch.equal(got.durations, want.durations)
    for row, n in enumerate(want.lengths.tolist()):
        a, b = got.hidden_states[-1][row, :n].float(), want.hidden_states[-1][row, :n]
        assert (a - b).norm() <= tolerance * b.norm()


def test_in_half_precision():
    condition, units = condition_of(trained()), torch.randn(2, 5, 24)
    durations, lam = torch.rand(2, 5) * 4, torch.tensor(0.3)
    want = condition(units, durations, lam)
    got = condition.bfloat16()(units.bfloat16(), durations, lam)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), want, atol=0.05, rtol=0.05)


def test_espnets_init_leaves_it_without_an_effect():
    condition = condition_of(trained())
    condition.espnet_initialization_fn()
    units = torch.randn(2, 5, 24)
    assert torch.equal(condition(units, torch.rand(2, 5), 0.3), units)


@pytest.mark.parametrize("kinds", ["durations", ["rate"], []])
def test_unknown_kinds_are_named(kinds):
    with pytest.raises(ValueError, match="list of durations and lam"):
        RateCondition(8, kinds)


def test_lambda_wants_a_compressor_that_has_one():
    with pytest.raises(ValueError, match="condition: lam needs compressor: cif; mean"):
        make(["lam"], compressor="mean")
    told = trained(["durations"], compressor="mean", compressor_conf={"factor": 3})
    assert told(*audio()).hidden_states[-1].isfinite().all()
