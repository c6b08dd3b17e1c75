"""A grid of lambdas, squeezes and test sets, for what decodes and what classifies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from espnet_ofa.report.knob import OWN, LamKnob, SqueezeKnob
from espnet_ofa.report.scoring import read_text
from espnet_ofa.report.stats import STATS_NAME, load_stats


class TestSet(NamedTuple):
    """Where a test set lies: its name, and path, name and type as ESPnet has them."""

    __test__ = False  # for pytest

    name: str
    data: list[tuple[str, str, str]]

    @property
    def index(self) -> Path:
        """The scp file that lists the audio."""
        return Path(self.data[0][0])

    @property
    def reference(self) -> Path | None:
        """Kaldi text file beside it, if there is one."""
        text = self.index.with_name("text")
        return text if text.is_file() else None


def parse_test_set(item: str) -> TestSet:
    """``NAME:DIR`` of a command line.

    Raises:
        ValueError: malformed.
    """
    name, _, folder = item.partition(":")
    if not name or not folder or "/" in name:
        raise ValueError(f"--test_set must be NAME:DIR; got {item!r}")
    return TestSet(name, [(str(Path(folder, "wav.scp")), "speech", "sound")])


def turn(
    model: nn.Module,
    lams: Sequence[float | str],
    squeezes: Sequence[str] | None,
    resolve: Callable[[float | str], float | str] = lambda lam: lam,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Set a model to each lambda with each squeeze.

    Args:
        model: which runs there until the next is asked for.
        lams: numbers, or ``own`` for the model's.
        squeezes: ``S,q,k`` or ``own`` each; None where there is no choice.
        resolve: of a lambda that is neither.

    Yields:
        The folder of the results, and what :class:`DecodeStats` says of the setting.

    Raises:
        ValueError: nothing there compresses by lambda, or no such squeeze.
    """
    use_lam, use_squeeze = LamKnob(model).use, SqueezeKnob(model).use
    for lam, squeeze in product(lams, squeezes or [OWN]):
        lam = resolve(lam)
        value, start = use_lam(lam)
        facts = {
            "lam": value,
            "adaptive": start is not None,
            "lam_start": start,
            "squeeze": use_squeeze(squeeze),
        }
        name = "lam" + (OWN if lam == OWN else f"{float(lam):g}")
        yield name + (f"-squeeze{squeeze}" if squeezes else ""), facts


def is_finished(
    folder: Path,
    setup: dict[str, object],
    model_sha256: str,
    keys: Path,
    inputs: Sequence[str | Path],
) -> bool:
    """Done before in the same way, and nothing it depends on is newer.

    Args:
        folder: where results are, or will be.
        setup: how.
        model_sha256: of the model.
        keys: file that lists the utterances.
        inputs: files that results depend on.
    """
    marker, text = folder / STATS_NAME, folder / "text"
    if not (marker.is_file() and text.is_file()):
        return False
    before = load_stats(folder)
    if (before.setup, before.model_sha256) != (setup, model_sha256):
        return False
    if read_text(text).keys() != read_text(keys).keys():
        return False
    made = marker.stat().st_mtime
    return all(path.stat().st_mtime <= made for path in map(Path, inputs))
