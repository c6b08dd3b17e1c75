"""Running an exported upstream: needs numpy and onnxruntime, and no torch.

>>> from espnet_ofa.zoo.onnx_runtime import OnnxUpstream
>>> upstream = OnnxUpstream("model.onnx")
>>> for out in upstream([wave, another], lam=0.6):     # 16 kHz, float32
...     print(out.units.shape, out.period_ms)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class OnnxUnits(NamedTuple):
    """What an upstream makes of one utterance.

    Attributes:
        hidden_states: (U, D) each; the topmost alone, or all from the embedding
            upwards, as the file was exported.
        durations: (U,) frames that each unit covers.
        period_ms: measured frame period.
    """

    hidden_states: list[np.ndarray]
    durations: np.ndarray
    period_ms: float

    @property
    def units(self) -> np.ndarray:
        """(U, D) topmost hidden states."""
        return self.hidden_states[-1]


class OnnxUpstream:
    """An upstream that :func:`espnet_ofa.zoo.onnx.export_onnx` wrote.

    Args:
        path: the file.
        threads: for one operator; by default as many as there are cores.
        providers: of ONNX Runtime, the first that can takes a node.

    Attributes:
        metadata: what the file says of itself.
        uses_lam: whether lambda is an input.

    Raises:
        ImportError: no onnxruntime.
        FileNotFoundError: no such file.
        ValueError: not an ONNX model, or not one of ours.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.session = open_session(path, threads, providers)
        self.metadata = self.session.get_modelmeta().custom_metadata_map
        inputs = [node.name for node in self.session.get_inputs()]
        if inputs[:2] != ["wave", "lengths"] or "frame_ms" not in self.metadata:
            raise ValueError(
                f"{path}: expected a model with inputs wave and lengths, written by "
                f"espnet_ofa; found inputs {', '.join(inputs)}"
            )
        self.uses_lam = "lam" in inputs
        self.frame_ms = float(self.metadata["frame_ms"])
        self._outputs = [node.name for node in self.session.get_outputs()]

    def __call__(
        self, waves: Sequence[np.ndarray], lam: float | None = None
    ) -> list[OnnxUnits]:
        """Encode a batch of utterances.

        Args:
            waves: (samples,) each, floats at 16 kHz in [-1, 1]; padded here.
            lam: number in [0, 2]; none for a compressor of a fixed rate.

        Raises:
            ValueError: a wave or lambda that the model cannot take.
        """
        outputs = self.run(waves, lam)
        lengths, durations = outputs.pop("unit_lengths"), outputs.pop("durations")
        results = []
        for row, length in enumerate(lengths):
            frames = durations[row, :length]
            period_ms = self.frame_ms * float(frames.sum()) / int(length)
            states = [state[row, :length] for state in outputs.values()]
            results.append(OnnxUnits(states, frames, period_ms))
        return results

    def run(
        self, waves: Sequence[np.ndarray], lam: float | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs of the graph by name, padded; see ``__call__``."""
        padded, lengths = pad(waves)
        feed: dict[str, np.ndarray] = {"wave": padded, "lengths": lengths}
        if self.uses_lam:
            feed["lam"] = np.array(_check_lam(lam, self.metadata), np.float32)
        elif lam is not None:
            raise ValueError(
                f"lam={lam}: this model has compressor: "
                f"{self.metadata.get('compressor')}, whose rate is fixed; leave lam out"
            )
        values: Any = self.session.run(self._outputs, feed)
        return dict(zip(self._outputs, values, strict=True))


def pad(waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Utterances to (B, L) float32, zero behind their ends, and (B,) int64 lengths.

    Raises:
        ValueError: none, or one that is not a row of finite floats.
    """
    if not len(waves):
        raise ValueError("expected at least one wave, found none")
    rows = [np.asarray(wave) for wave in waves]
    for i, row in enumerate(rows):
        if row.ndim != 1 or not row.size:
            raise ValueError(
                f"wave {i}: expected one channel of at least one sample; found shape "
                f"{row.shape}"
            )
        if not np.issubdtype(row.dtype, np.floating):
            raise ValueError(
                f"wave {i}: expected floats in [-1, 1], found {row.dtype}; divide 16 "
                "bit integers by 32768"
            )
        if not np.isfinite(row).all():
            raise ValueError(f"wave {i}: holds NaN or infinity")
    lengths = np.array([row.size for row in rows], np.int64)
    padded = np.zeros((len(rows), int(lengths.max())), np.float32)
    for i, row in enumerate(rows):
        padded[i, : row.size] = row
    return padded, lengths


def open_session(path: str | Path, threads: int | None, providers: Sequence[str]):
    """An ``onnxruntime.InferenceSession``; errors as for :class:`OnnxUpstream`."""
    try:
        import onnxruntime
    except ImportError as e:
        raise ImportError(
            "running an ONNX model needs onnxruntime: pip install onnxruntime"
        ) from e
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as e:  # of onnxruntime, not exported
        cause = " ".join(str(e).split())[:300]
        raise ValueError(f"{path}: ONNX Runtime cannot load it: {cause}") from e


def _check_lam(lam: float | None, metadata: dict[str, str]) -> float:
    low, high = float(metadata["lam_min"]), float(metadata["lam_max"])
    if lam is None or not low <= lam <= high:
        raise ValueError(f"lam must lie in [{low:g}, {high:g}]; got {lam}")
    return lam
