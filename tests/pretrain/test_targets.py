"""K-means targets and segments."""

import numpy as np
import pytest
import torch

from espnet_ofa.pretrain.segments import (
    boundaries_from_codes,
    check_boundaries,
    fit_switch_cost,
    smoothed_codes,
)
from espnet_ofa.pretrain.targets import (
    KMeans,
    cepstral_features,
    hidden_features,
    sample_frames,
)
from espnet_ofa.pretrain.teacher import UpstreamTeacher
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig


def noisy_segments(seed=0, count=40, noise=0.7):
    """(S, 4) frames that dwell near one of four corners, and the true codes."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(rng.integers(0, 4, count), rng.integers(3, 8, count))
    frames = 2.0 * np.eye(4)[codes] + noise * rng.standard_normal((len(codes), 4))
    return frames.astype(np.float32), codes


@pytest.mark.parametrize("samples", [400, 5000, 16000])
def test_cepstra_have_one_row_a_frame(samples):
    x = cepstral_features()(np.random.default_rng(0).standard_normal(samples))
    assert x.shape == (max((samples - 400) // 320 + 1, 1), 39)
    assert np.isfinite(x).all()


def test_cepstra_tell_sounds_apart():
    t = np.arange(16000) / 16000
    wave = np.concatenate([np.sin(2 * np.pi * f * t) for f in (300, 2500)])
    wave += 0.01 * np.random.default_rng(0).standard_normal(32000)
    x = cepstral_features()(wave)
    codes = KMeans.fit(x, 2).codes(x)
    left, right = codes[5:45], codes[55:95]
    assert (left == left[0]).mean() > 0.9 and (right == 1 - left[0]).mean() > 0.9


def test_kmeans_round_trip(tmp_path):
    frames, codes = noisy_segments(noise=0.1)
    kmeans = KMeans.fit(frames, 4)
    found = kmeans.codes(frames)
    assert len({(a, b) for a, b in zip(codes, found, strict=True)}) == 4
    np.testing.assert_allclose(
        kmeans.distances(frames),
        np.square(frames[:, None] - kmeans.centroids).sum(-1),
        atol=1e-4,
    )
    kmeans.save(tmp_path / "k.npy")
    again = KMeans.load(tmp_path / "k.npy")
    np.testing.assert_array_equal(again.codes(frames), found)
    with pytest.raises(ValueError, match="at least as many frames"):
        KMeans.fit(frames[:3], 4)


def test_sample_is_drawn_without_repeats():
    parts = [np.arange(10.0)[:, None], np.arange(10.0, 30.0)[:, None]]
    x = sample_frames(parts, 12, seed=1)
    assert len(np.unique(x)) == 12
    assert len(sample_frames(parts, 100)) == 30


def test_hidden_features_come_from_the_layer_at_20_ms():
    conf = UpstreamConfig(
        "logmel",
        {"dim": 8},
        dim=8,
        layers=2,
        heads=2,
        ff_dim=8,
        pos_kernel=3,
        pos_groups=1,
    )
    upstream = OFAUpstream(conf).eval()
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    teacher = UpstreamTeacher("mine", upstream)
    x = hidden_features(teacher, 1)(samples)
    wanted = upstream(torch.from_numpy(samples)[None], lam=0.0).hidden_states[1][0]
    np.testing.assert_array_equal(x, wanted.detach().numpy())
    with pytest.raises(ValueError, match=r"mine: expected layers from 0 .* to 2"):
        hidden_features(teacher, 3)


def test_smoothing_is_optimal():
    rng = np.random.default_rng(3)
    distances = rng.random((6, 3))
    cost = 0.3

    def price(path):
        return distances[np.arange(6), path].sum() + cost * np.count_nonzero(
            np.diff(path)
        )

    every = np.stack(np.meshgrid(*[range(3)] * 6), -1).reshape(-1, 6)
    best = min(price(p) for p in every)
    assert price(smoothed_codes(distances, cost)) == pytest.approx(best)


def test_smoothing_finds_true_segments_at_the_asked_rate():
    data = [noisy_segments(seed) for seed in range(6)]
    kmeans = KMeans(2.0 * np.eye(4))
    distances = [kmeans.distances(x) for x, _ in data]
    truth = [boundaries_from_codes(c) for _, c in data]
    frames = sum(len(c) for _, c in data)
    rate = sum(map(len, truth)) / frames
    cost = fit_switch_cost(distances, rate)
    found = [boundaries_from_codes(smoothed_codes(d, cost)) for d in distances]
    assert sum(map(len, found)) / frames == pytest.approx(rate, rel=0.1)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True))
    raw = sum(len(boundaries_from_codes(d.argmin(1))) for d in distances) / frames
    assert raw > 1.3 * rate  # unsmoothed runs are too short
    assert hits > 0.75 * sum(map(len, truth))


def test_rate_below_one_segment_an_utterance():
    distances = [np.random.default_rng(i).random((49, 5)) for i in range(5)]
    cost = fit_switch_cost(distances, 0.03)
    runs = [boundaries_from_codes(smoothed_codes(d, cost)) for d in distances]
    assert sum(map(len, runs)) / (5 * 49) <= 0.03
    with pytest.raises(ValueError, match="one for each of the 5 utterances"):
        fit_switch_cost(distances, 0.02)


def test_codes_that_rarely_change_need_no_smoothing():
    assert fit_switch_cost([np.array([[0.0, 1.0]] * 10)], 0.5) == 0.0


@pytest.mark.parametrize(
    ("ends", "message"),
    [([], "increase"), ([0, 5], "increase"), ([3, 3, 5], "increase"), ([3, 6], "6")],
)
def test_segments_that_do_not_fit_name_the_utterance(ends, message):
    with pytest.raises(ValueError, match=f"(?s)utt7.*{message}"):
        check_boundaries(np.array(ends, dtype=int), 5, "utt7")
