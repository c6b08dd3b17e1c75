"""A decode dir as asr_inference leaves it, without running any model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from espnet_ofa.report.stats import DecodeStats

REFS = {"u1": "one two three", "u2": "four five"}


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "test" / "text"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{key} {text}\n" for key, text in REFS.items()))
    return path


@pytest.fixture
def decoded(reference: Path) -> Callable[..., DecodeStats]:
    """Write ``folder`` with hypotheses for the references; returns its stats."""

    def make(folder: Path, lam: float | None, units: int, hyps=None, **fields):
        hyps = hyps or REFS
        stats = DecodeStats(
            "test",
            lam=lam,
            utterances=len(hyps),
            units=units,
            frames=200,
            frame_seconds=4.0,
            audio_seconds=4.02,
            encoder_seconds=0.2,
            decode_seconds=0.1,
            macs=units * 1e6,
            macs_seconds=2.0,
            infeasible=0,
            parameters={"encoder": 1_500_000},
            reference=str(reference),
            setup={"search": "greedy"},
        )
        for name, value in fields.items():
            setattr(stats, name, value)
        folder.mkdir(parents=True)
        for name in ("text", "token", "token_int", "score"):
            lines = "".join(f"{key} {text}\n" for key, text in hyps.items())
            (folder / name).write_text(lines)
        stats.save(folder)
        return stats

    return make
