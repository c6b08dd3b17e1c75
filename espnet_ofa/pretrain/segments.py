"""Segments that guide alpha, and the file that holds them.

A segment file has one line an utterance: ``utt b1 b2 ... bK``, where ``b_k`` is the
first frame (20 ms) after the k-th segment, increasing, and the last one is the number
of frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espnet_ofa.subsampling.rate import FRAME_MS


def smoothed_codes(distances: np.ndarray, switch_cost: float) -> np.ndarray:
    """Codes with a price on every change: the cheapest path over k-means distances.

    Args:
        distances: (S, K) squared distance of each frame to each centroid.
        switch_cost: price of one change of code, in the unit of the distances.

    Returns:
        (S,) codes.
    """
    n, k = distances.shape
    cost = distances[0].copy()
    back = np.empty((n, k), dtype=np.int32)
    stay = np.arange(k, dtype=np.int32)
    for t in range(1, n):
        best = int(cost.argmin())
        switch = cost[best] + switch_cost
        keep = cost <= switch
        back[t] = np.where(keep, stay, best)
        cost = np.where(keep, cost, switch) + distances[t]
    path = np.empty(n, dtype=np.int64)
    path[-1] = int(cost.argmin())
    for t in range(n - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def boundaries_from_codes(codes: np.ndarray) -> np.ndarray:
    """First frame after each run of equal codes; the last entry is the length."""
    changes = np.flatnonzero(np.diff(codes)) + 1
    return np.append(changes, len(codes))


def fit_switch_cost(
    distances: Sequence[np.ndarray], target_rate: float, steps: int = 20
) -> float:
    """Price of a change at which runs have the target rate, by bisection.

    Args:
        distances: (S, K) arrays of some utterances.
        target_rate: wanted segments per frame (2/9: 90 ms).
        steps: bisections.

    Returns:
        The price; 0.0 when even without one the runs are rarer than wanted.

    Raises:
        ValueError: not even one run for each utterance would have the target rate.
    """
    frames = sum(len(d) for d in distances)

    def rate(cost: float) -> float:
        segments = sum(
            len(boundaries_from_codes(smoothed_codes(d, cost))) for d in distances
        )
        return segments / frames

    if rate(0.0) <= target_rate:
        return 0.0
    least = len(distances) / frames  # an utterance has a segment at any price
    if target_rate < least:
        raise ValueError(
            f"expected at least {least:.3g} segments a frame, one for each of the "
            f"{len(distances)} utterances; asked for {target_rate:.3g}: choose a "
            "shorter period, or longer utterances"
        )
    low, high = 0.0, 1.0
    while rate(high) > target_rate:
        low, high = high, 2 * high
    for _ in range(steps):
        middle = (low + high) / 2
        if rate(middle) > target_rate:
            low = middle
        else:
            high = middle
        if high - low < 1e-3 * high:
            break
    return high


def ends_in_frames(ends: np.ndarray, num_frames: int, utt: str) -> np.ndarray:
    """First frame after each segment, from ends in seconds.

    The last one ends with the last whole frame. What is shorter than a frame may go to
    its neighbour.

    Raises:
        ValueError: names the utterance whose segments do not fit its audio.
    """
    frames = np.round(ends * 1000 / FRAME_MS).astype(int)
    if abs(frames[-1] - num_frames) > 2:
        check_boundaries(frames, num_frames, utt)
    inner = np.unique(frames[(frames >= 1) & (frames < num_frames)])
    return np.append(inner, num_frames)


def check_boundaries(boundaries: np.ndarray, num_frames: int, utt: str) -> None:
    """Check one utterance's segments against its audio.

    Raises:
        ValueError: names the utterance when they do not increase from 1 to its frames.
    """
    ok = len(boundaries) > 0 and boundaries[0] >= 1 and np.all(np.diff(boundaries) > 0)
    if not ok:
        raise ValueError(
            f"{utt}: segment ends must increase from at least 1; found "
            f"{boundaries[:8].tolist()}"
        )
    if boundaries[-1] != num_frames:
        raise ValueError(
            f"{utt}: segments end at frame {int(boundaries[-1])}, the audio has "
            f"{num_frames} frames of 20 ms. Recompute the segments for this audio "
            "(speed perturbation changes them)"
        )
