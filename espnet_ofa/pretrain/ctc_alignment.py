"""Forced alignment with CTC: which units say which label of a known text.

The best path through Graves' lattice (ICML 2006) by Viterbi. ESPnet's own goes through
torchaudio's compiled extension, which CPU installations lack.
"""

from __future__ import annotations

import numpy as np

_NEVER = -np.inf


def ctc_path(log_probs: np.ndarray, labels: np.ndarray, blank: int = 0) -> np.ndarray:
    """The likeliest path that reads as the labels.

    Args:
        log_probs: (U, V) of each unit.
        labels: (L,) ids, none of them blank.
        blank: its id.

    Returns:
        (U,) which label each unit says: its place from 0 to L - 1, or -1 for blank.

    Raises:
        ValueError: no labels, or fewer units than they need.
    """
    n_units, n_labels = len(log_probs), len(labels)
    repeats = labels[1:] == labels[:-1]
    needed = n_labels + np.count_nonzero(repeats)
    if not 0 < needed <= n_units:
        raise ValueError(
            f"{n_labels} labels need from 1 to {n_units} units, as many as there are; "
            f"they need {needed}. Use a smaller lambda, or leave the utterance out"
        )
    states = np.full(2 * n_labels + 1, blank)  # blank, label, blank ... blank
    states[1::2] = labels
    skips = np.zeros(len(states), bool)  # from label to label, where they differ
    skips[3::2] = ~repeats
    emit = log_probs[:, states]  # (U, 2 L + 1)
    score = np.full(len(states), _NEVER)
    score[:2] = emit[0, :2]
    steps = np.zeros((n_units, len(states)), np.int8)  # states gone forward: 0, 1, 2
    come = np.full((3, len(states)), _NEVER)
    for t in range(1, n_units):
        come[0], come[1, 1:] = score, score[:-1]
        come[2, 2:] = np.where(skips[2:], score[:-2], _NEVER)
        steps[t] = come.argmax(0)
        score = come.max(0) + emit[t]
    state = len(states) - 2 + int(score[-1] > score[-2])
    path = np.empty(n_units, int)
    for t in range(n_units - 1, -1, -1):
        path[t] = state
        state -= steps[t, state]
    return np.where(path % 2, path // 2, -1)


def label_starts(path: np.ndarray, durations: np.ndarray) -> np.ndarray:
    """Where each label begins, in frames: with the first unit that says it.

    What CTC says next to it is blank, which does not mean silence. That a label lasts
    until the next one is said is what fits true phones best; halfway between the two
    is no better than chance (measured on ``egs2/synth``).

    Args:
        path: of :func:`ctc_path`.
        durations: (U,) frames that each unit covers.

    Returns:
        (L,) increasing.
    """
    edges = np.concatenate([[0.0], durations.cumsum()])
    said = np.flatnonzero(path >= 0)
    return edges[said[np.diff(path[said], prepend=-1) > 0]]
