"""Lambda: the mixing rule, its nominal periods, draws, bounds and the two keys."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_ofa.subsampling import (
    LamPolicy,
    LamSampler,
    LamUnsetError,
    LearnableLam,
    compress_weights,
    fix_lam,
    lam_to_period_ms,
    period_ms_to_lam,
)

lams = st.floats(0.0, 2.0)


@given(lam=lams, seed=st.integers(0, 99))
def test_rule_for_numbers_and_tensors(lam, seed):
    alpha = torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)).double()
    wanted = 1 - lam + lam * alpha if lam <= 1 else (2 - lam) * alpha
    tensors = [torch.tensor(lam).double(), torch.tensor([lam, lam]).double()]
    for form in (lam, *tensors, tensors[0].reshape(1)):
        torch.testing.assert_close(compress_weights(alpha, form), wanted)


def test_rule_takes_one_lambda_per_utterance():
    alpha = torch.rand(3, 4)
    lam = torch.tensor([0.0, 1.0, 1.5])
    out = compress_weights(alpha, lam)
    assert torch.equal(out[0], torch.ones(4))
    torch.testing.assert_close(out[1], alpha[1])
    torch.testing.assert_close(out[2], 0.5 * alpha[2])


@pytest.mark.parametrize("lam", [0.3, torch.tensor([0.3, 0.7])])
def test_rule_mixes_in_fp32(lam):
    alpha = torch.rand(2, 50).bfloat16()
    weights = compress_weights(alpha, lam)
    assert weights.dtype == torch.float32
    assert torch.equal(weights, compress_weights(alpha.float(), lam))


def test_rule_is_differentiable_in_lambda():
    alpha = torch.rand(2, 6, dtype=torch.float64)
    for value in (0.3, 1.4):
        lam = torch.tensor([value], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: compress_weights(alpha, x), lam)


@pytest.mark.parametrize("lam", [-0.1, 2.1, float("nan")])
def test_lambda_out_of_range_is_named(lam):
    with pytest.raises(ValueError, match="lambda must lie in"):
        compress_weights(torch.rand(1, 3), lam)


def test_lambda_as_text_is_refused():
    with pytest.raises(ValueError, match="must be a number; got the string '0.5'"):
        compress_weights(torch.rand(1, 3), "0.5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("period", "lam"), [(20, 0), (30, 0.4286), (60, 0.857), (90, 1), (180, 1.5)]
)
def test_nominal_periods_of_the_paper(period, lam):
    assert period_ms_to_lam(period) == pytest.approx(lam, abs=1e-3)
    assert lam_to_period_ms(period_ms_to_lam(period)) == pytest.approx(period)


@given(
    lam=st.floats(0.0, 1.99), mean=st.floats(0.05, 0.9), frame_ms=st.floats(5.0, 40.0)
)
def test_period_and_lambda_are_inverse(lam, mean, frame_ms):
    period = lam_to_period_ms(lam, mean_alpha=mean, frame_ms=frame_ms)
    back = period_ms_to_lam(period, mean_alpha=mean, frame_ms=frame_ms)
    assert back == pytest.approx(lam, abs=1e-6)


def test_period_below_the_frames_is_an_error():
    with pytest.raises(ValueError, match="below the frames"):
        period_ms_to_lam(10)


def test_draws_depend_on_seed_and_step_only():
    ranks = [LamSampler("uniform", seed=3) for _ in range(2)]
    torch.manual_seed(1)
    first = [ranks[0]() for _ in range(20)]
    torch.manual_seed(2)
    assert first == [ranks[1]() for _ in range(20)]
    assert first != [LamSampler("uniform", seed=4)() for _ in range(20)]
    assert len(set(first)) == 20


@pytest.mark.parametrize(
    ("mode", "low", "high", "mean_period"),
    [
        ("uniform", 0.0, 1.0, None),
        ("ends", 0.0, 1.0, None),
        ("log_period", 0.0, 1.0, 70 / math.log(4.5)),
        ("uniform_period", 0.0, 1.0, 55.0),
        ("extended", 0.0, 2.0, None),
        ([0.2, 0.3], 0.2, 0.3, None),
        (0.7, 0.7, 0.7, None),
    ],
)
def test_draws_fill_their_range(mode, low, high, mean_period):
    sampler = LamSampler(mode)
    draws = [sampler() for _ in range(2000)]
    assert low <= min(draws) <= low + 0.02 * (high - low) + 1e-9
    assert high - 0.02 * (high - low) - 1e-9 <= max(draws) <= high
    if mean_period is not None:
        periods = [lam_to_period_ms(x) for x in draws]
        assert sum(periods) / 2000 == pytest.approx(mean_period, rel=0.03)


def below(mode, period):
    """Share of draws whose nominal period is below this one, in ms."""
    lam = period_ms_to_lam(period)
    return {
        "uniform": lam,
        "extended": lam / 2,
        "uniform_period": (period - 20) / 70,
        "log_period": math.log(period / 20) / math.log(4.5),
    }[mode]


@pytest.mark.parametrize("mode", ["uniform", "log_period", "uniform_period"])
@pytest.mark.parametrize("period", [25, 32.7, 42.4, 55, 70, 85])
def test_draws_have_the_density_that_is_stated(mode, period):
    sampler = LamSampler(mode, seed=1)
    lam = period_ms_to_lam(period)
    share = sum(sampler() < lam for _ in range(4000)) / 4000
    assert share == pytest.approx(below(mode, period), abs=0.025)


def test_medians_and_the_tail_that_are_stated():
    medians = {"uniform": 32.7, "log_period": 42.4, "uniform_period": 55}
    for mode, period in {**medians, "extended": 90}.items():
        assert below(mode, period) == pytest.approx(0.5, abs=0.002)
    assert below("extended", 900) == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("mode", "rest"), [("ends", "uniform"), ("ends_period", "uniform_period")]
)
def test_ends_are_drawn_exactly_and_the_rest_evenly(mode, rest):
    sampler = LamSampler(mode)
    draws = [sampler() for _ in range(4000)]
    between = [lam for lam in draws if lam not in (0.0, 1.0)]
    assert draws.count(0.0) / 4000 == pytest.approx(0.25, abs=0.025)
    assert draws.count(1.0) / 4000 == pytest.approx(0.25, abs=0.025)
    lam = period_ms_to_lam(40)
    share = sum(x < lam for x in between) / len(between)
    assert share == pytest.approx(below(rest, 40), abs=0.035)


def test_periods_end_at_the_rate_that_alpha_has():
    sampler = LamSampler("log_period", mean_alpha=0.1)  # 200 ms at lambda 1
    draws = sorted(sampler() for _ in range(2000))
    assert draws[0] < 0.01 and draws[-1] > 0.99
    median = lam_to_period_ms(draws[1000], mean_alpha=0.1)
    assert median == pytest.approx(math.sqrt(20 * 200), rel=0.05)


@pytest.mark.parametrize("mode", ["unifrom", [0.5, 0.2], [0.1], 3.0])
def test_bad_sampler_is_an_error(mode):
    with pytest.raises(ValueError, match="lam"):
        LamSampler(mode)


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0])
def test_learnable_lambda_reaches_its_optimum_inside_the_bounds(start):
    lam = LearnableLam(start, low=0.0, high=1.0)
    assert lam.raw.shape == (1,)
    optimizer = torch.optim.Adam(lam.parameters(), lr=1e-3)
    for _ in range(400):
        optimizer.zero_grad()
        (lam.value() - 0.8).square().sum().backward()
        optimizer.step()
    assert lam.value().item() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("init", "start"), [(0.2, 0.206), (0.204, 0.206), (0.5, 0.5), (0.8, 0.794)]
)
def test_learnable_lambda_starts_off_its_bounds(init, start):
    """By one percent of the way between them: on a bound, nothing would learn."""
    lam = LearnableLam(init, low=0.2, high=0.8)
    assert lam.value().item() == pytest.approx(start, abs=1e-5)


def test_learnable_lambda_never_leaves_its_bounds():
    lam = LearnableLam(0.5, low=0.2, high=0.9)
    for raw in (-1e3, 1e3):
        lam.raw.data.fill_(raw)
        assert 0.2 <= lam.value().item() <= 0.9


@pytest.mark.parametrize(
    "conf", [{"low": 0.5, "high": 0.5}, {"init": 0.1, "low": 0.2}, {"speed": 0.0}]
)
def test_bad_bounds_are_an_error(conf):
    with pytest.raises(ValueError):
        LearnableLam(**conf)


def test_two_keys():
    policy = LamPolicy(lam=0.4, lam_train="uniform")
    drawn = {policy() for _ in range(5)}
    assert len(drawn) == 5
    with torch.no_grad():  # collect_stats never calls eval()
        assert policy() == 0.4
    policy.eval()
    assert policy() == 0.4


def test_one_lambda_can_be_demanded_for_a_while():
    policy = LamPolicy(0.4, "uniform")
    with policy.at(0.0):
        assert policy() == 0.0
        with policy.at(1.0):
            assert policy() == 1.0
        assert policy.eval()() == 0.0
    assert policy() == 0.4
    assert policy.train()() == LamPolicy(0.4, "uniform")()  # nothing was drawn


def test_draws_go_on_where_a_checkpoint_left_them():
    policy = LamPolicy(0.4, "uniform")
    drawn = [policy() for _ in range(3)]
    resumed = LamPolicy(0.4, "uniform")
    resumed.load_state_dict(policy.state_dict())
    assert resumed() == policy()
    assert resumed() not in drawn


def test_unset_lambda_is_an_error_and_never_a_draw():
    policy = LamPolicy(lam_train="uniform").eval()
    with pytest.raises(LamUnsetError, match="set_lam"):
        policy()
    fix_lam(torch.nn.Sequential(policy), 0.6)
    assert policy() == 0.6


def test_adaptive_lambda_is_live_in_training_and_can_be_overridden():
    policy = LamPolicy("adaptive", lam_conf={"init": 0.25})
    assert policy().requires_grad
    policy.eval()
    assert policy().item() == pytest.approx(0.25)
    policy.set(0.9)
    assert policy() == 0.9
    assert policy.train()().item() == pytest.approx(0.25)


@pytest.mark.parametrize(
    "conf",
    [
        {"lam": "adaptiv"},
        {"lam": "adaptive", "lam_train": "uniform"},
        {"lam": 0.3, "lam_conf": {"init": 0.2}},
        {"lam": -1.0},
    ],
)
def test_contradicting_keys_are_an_error(conf):
    with pytest.raises(ValueError):
        LamPolicy(**conf)


def test_fix_lam_wants_something_that_compresses():
    with pytest.raises(ValueError, match="no part that compresses by lambda"):
        fix_lam(torch.nn.Linear(2, 2), 0.5)
