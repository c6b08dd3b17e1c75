"""K-means targets, one code a frame (HuBERT, section II.A)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnet_ofa.files import write_file
from espnet_ofa.pretrain.teacher import Teacher
from espnet_ofa.upstream.extractor import LogMelExtractor

FeatureFn = Callable[[np.ndarray], np.ndarray]


def cepstral_features(mels: int = 40, coefficients: int = 13) -> FeatureFn:
    """MFCC with first and second differences at 20 ms, of normalised log-mel.

    The dimensions keep their own variances, as in HuBERT: evened out, the
    noise of the high ones takes over.

    Returns:
        A function from (L,) samples at 16 kHz to (S, 3 * coefficients) float32.
    """
    from torchaudio.functional import create_dct

    extractor = LogMelExtractor(dim=1, mels=mels)
    dct = create_dct(coefficients, mels, norm="ortho")  # (mels, coefficients)

    @torch.no_grad()
    def features(samples: np.ndarray) -> np.ndarray:
        wave = torch.from_numpy(np.asarray(samples, np.float32))[None]
        mel, _ = extractor.log_mel(wave, torch.tensor([wave.shape[1]]))
        cepstra = mel[0].unflatten(1, (2, mels)).mean(1) @ dct  # (S, coefficients)
        slope = _difference(cepstra)
        return torch.cat([cepstra, slope, _difference(slope)], 1).numpy()

    return features


def _difference(x: Tensor) -> Tensor:
    """Central difference over time of (S, D), edges repeated."""
    padded = torch.cat([x[:1], x, x[-1:]])
    return (padded[2:] - padded[:-2]) / 2


def hidden_features(teacher: Teacher, layer: int) -> FeatureFn:
    """Hidden states of one layer at 20 ms, for the second round of targets.

    Args:
        teacher: a trained encoder.
        layer: 0 is the embedding, 1 the first layer.

    Raises:
        ValueError: the encoder has no such layer.
    """
    teacher.check_layers([layer])

    def features(samples: np.ndarray) -> np.ndarray:
        wave = torch.from_numpy(np.asarray(samples, np.float32))[None]
        states, _ = teacher(wave, torch.tensor([wave.shape[1]]), [layer])
        return states[0, :, 0].float().numpy()

    return features


class KMeans:
    """K-means codebook over frames.

    Args:
        centroids: (K, D) float32.
    """

    def __init__(self, centroids: np.ndarray) -> None:
        self.centroids = np.ascontiguousarray(centroids, dtype=np.float32)

    @classmethod
    def fit(cls, frames: np.ndarray, num_codes: int, seed: int = 0) -> KMeans:
        """Fit on (N, D) frames.

        Raises:
            ValueError: fewer frames than codes.
        """
        from sklearn.cluster import MiniBatchKMeans

        if len(frames) < num_codes:
            raise ValueError(
                f"{num_codes} codes need at least as many frames; got {len(frames)}"
            )
        kmeans = MiniBatchKMeans(
            num_codes,
            init="k-means++",
            batch_size=10_000,
            max_iter=100,
            n_init="auto",
            random_state=seed,
        )
        kmeans.fit(frames)
        return cls(np.asarray(kmeans.cluster_centers_))

    def distances(self, frames: np.ndarray) -> np.ndarray:
        """(S, D) frames -> (S, K) squared distances."""
        cross = frames @ self.centroids.T
        norms = np.square(self.centroids).sum(1)
        return np.square(frames).sum(1)[:, None] - 2 * cross + norms

    def codes(self, frames: np.ndarray) -> np.ndarray:
        """(S, D) frames -> (S,) codes."""
        return self.distances(frames).argmin(1)

    def save(self, path: str | Path) -> None:
        """Write the centroids as ``.npy``."""

        def write(draft: Path) -> None:
            with draft.open("wb") as f:  # to a name, numpy might add a suffix
                np.save(f, self.centroids, allow_pickle=False)

        write_file(path, write)

    @classmethod
    def load(cls, path: str | Path) -> KMeans:
        """Read what :meth:`save` wrote."""
        return cls(np.load(path, allow_pickle=False))


def sample_frames(
    utterances: Iterable[np.ndarray], total: int, seed: int = 0
) -> np.ndarray:
    """Up to ``total`` frames, drawn at random from (S, D) arrays."""
    frames = np.concatenate(list(utterances))
    if len(frames) > total:
        keep = np.random.default_rng(seed).choice(len(frames), total, replace=False)
        frames = frames[np.sort(keep)]
    return frames


def check_targets(num_targets: int, num_frames: int, utt: str) -> None:
    """Check one utterance's targets against its audio.

    Raises:
        ValueError: names the utterance unless it has one target a frame.
    """
    if num_targets != num_frames:
        raise ValueError(
            f"{utt}: {num_targets} targets for audio of {num_frames} frames of 20 ms. "
            "Make the targets again for this audio (stage 6)"
        )
