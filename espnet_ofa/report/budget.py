"""``lam="auto"``: the least compression that fits a budget of time or compute.

What each lambda costs stands in ``calibration.json`` beside the model, measured by
``python -m espnet_ofa.bin.bench calibrate`` on the machine that will run it. A time
measured elsewhere, or for other weights, is refused. MACs are the same everywhere, and
an upstream's are known by formula.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_ofa.files import write_text
from espnet_ofa.report.environment import cpu_name
from espnet_ofa.subsampling.compressor import CIFCompressor
from espnet_ofa.subsampling.policy import fix_lam
from espnet_ofa.subsampling.rate import Lam, lam_to_period_ms
from espnet_ofa.upstream.extractor import SAMPLE_RATE, frame_lengths
from espnet_ofa.upstream.model import OFAUpstream

logger = logging.getLogger(__name__)

CALIBRATION_NAME = "calibration.json"
AUTO = "auto"
NOMINAL_LAMS = tuple(i / 20 for i in range(31))  # 0 to 1.5
_REMEDY = "measure on this machine: python -m espnet_ofa.bin.bench calibrate"


@dataclass(frozen=True)
class Price:
    """What one lambda costs.

    Attributes:
        lam: lambda.
        period_ms: frame period; measured, or nominal where nothing ran.
        macs_per_second: multiply-accumulates per second of audio.
        rtf: real-time factor; None where nothing was timed.
    """

    lam: float
    period_ms: float
    macs_per_second: float
    rtf: float | None = None


@dataclass(frozen=True)
class Calibration:
    """Prices of one model over lambda, on one machine.

    Attributes:
        model: :func:`model_checksum` of what was measured.
        machine: :func:`machine` it was measured on; empty for formulas.
        setup: what was timed, e.g. ``{"search": "greedy"}``.
        prices: by lambda, ascending.
        facts: audio, versions, commit, date: for the reader.
    """

    model: str
    machine: dict[str, Any]
    setup: dict[str, Any]
    prices: list[Price]
    facts: dict[str, Any] = field(default_factory=dict)


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What has to be the same for a time to be the same."""
    device = torch.device(device)
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "cpu": cpu_name()}
    return {"device": "cpu", "cpu": cpu_name(), "threads": torch.get_num_threads()}


def search_setup(args: argparse.Namespace) -> dict[str, Any]:
    """What decides how long decoding takes, in the words of ESPnet's options."""
    setup: dict[str, Any] = {"search": args.search}
    if args.search == "beam":
        names = ["beam_size", "ctc_weight", "penalty", "maxlenratio"]
        names += ["lm_weight"] * bool(args.lm_file)
        setup.update((name, getattr(args, name)) for name in names)
    return {**setup, "batch_size": args.batch_size, "dtype": args.dtype}


def model_checksum(model: nn.Module | Mapping[str, object]) -> str:
    """SHA-256 over names, shapes, types and values; which lambda is set does not count.

    Of a state dict it is the same, whatever file that was read from. Quantised layers
    keep their weights packed; those count by their values too.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if re.search(r"(^|\.)policy\.(?!learnable\.)", name):
            continue  # the lambda of now, and how often it was drawn
        digest.update(name.encode())
        for tensor in _tensors(value):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            if tensor.is_quantized:
                tensor = tensor.dequantize()
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def save_calibration(calibration: Calibration, path: str | Path) -> Path:
    """Add to a ``calibration.json``, or replace what has the same model and setup."""
    path = Path(path)
    kept = [
        other
        for other in (load_calibrations(path) if path.is_file() else [])
        if (other.model, other.machine, other.setup)
        != (calibration.model, calibration.machine, calibration.setup)
    ]
    content = [dataclasses.asdict(one) for one in (*kept, calibration)]
    return write_text(path, json.dumps({"calibrations": content}, indent=2) + "\n")


def load_calibrations(path: str | Path) -> list[Calibration]:
    """Read ``calibration.json``, or the one in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not what :func:`save_calibration` writes.
    """
    path = Path(path)
    path = path / CALIBRATION_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {_REMEDY}")
    try:
        found = []
        for item in json.loads(path.read_text(encoding="utf-8"))["calibrations"]:
            prices = [Price(**price) for price in item.pop("prices")]
            found.append(Calibration(prices=prices, **item))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a calibration ({type(error).__name__}: {error}); remove it "
            f"and {_REMEDY}"
        ) from error
    return found


def find_calibration(
    path: str | Path,
    checksum: str,
    *,
    setup: Mapping[str, Any] | None = None,
    here: Mapping[str, Any] | None = None,
) -> Calibration:
    """The calibration of a model in a file.

    Args:
        path: ``calibration.json``, or its folder.
        checksum: :func:`model_checksum` of the model.
        setup: what will run; keys that a calibration has must agree. None: any.
        here: :func:`machine` that will run it; None where only MACs matter.

    Raises:
        FileNotFoundError, ValueError: see :func:`load_calibrations`; or none fits, with
            what there is instead.
    """
    found = load_calibrations(path)
    ours = [one for one in found if one.model == checksum]
    if not ours:
        raise ValueError(
            f"{path}: made for other weights (expected {checksum[:12]}, found "
            f"{', '.join(sorted({one.model[:12] for one in found})) or 'none'}); "
            f"{_REMEDY}"
        )
    if here is not None:
        others = [one.machine for one in ours if one.machine != here]
        ours = [one for one in ours if one.machine == here]
        if not ours:
            raise ValueError(
                f"{path}: measured on another machine (expected {dict(here)}, found "
                f"{others}); times do not carry over, so {_REMEDY}"
            )
    if setup is not None:
        others = [one.setup for one in ours]
        ours = [one for one in ours if _agree(one.setup, setup)]
        if not ours:
            raise ValueError(
                f"{path}: measured for other settings (expected {dict(setup)}, found "
                f"{others}); {_REMEDY} with those"
            )
    if here is not None and ours[-1].facts.get("torch") not in (None, _torch()):
        logger.warning(
            f"{path}: measured with torch {ours[-1].facts['torch']}, and this is "
            f"{_torch()}: times may have moved"
        )
    return ours[-1]


def _agree(measured: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(wanted.get(name) == value for name, value in measured.items())


def _torch() -> str:
    return str(torch.__version__)


def nominal_calibration(upstream: OFAUpstream, seconds: float = 15.0) -> Calibration:
    """MACs of an upstream by formula, at the rate that its predictor was made for.

    Args:
        upstream: only its shapes are read.
        seconds: length of the utterance to price; attention grows with it.

    Raises:
        ValueError: it does not compress by lambda.
    """
    from espnet_ofa.report.cost import shapes_only, upstream_macs

    compressor = upstream.compressor
    if not isinstance(compressor, CIFCompressor):
        raise ValueError(f"{type(compressor).__name__} has no lambda to choose")
    samples = round(seconds * SAMPLE_RATE)
    frames = frame_lengths(samples)
    shapes = shapes_only(upstream.config)
    prices = []
    for lam in NOMINAL_LAMS:
        mean_alpha = compressor.predictor.target_rate / compressor.threshold
        period = lam_to_period_ms(lam, mean_alpha=mean_alpha)
        units = max(1, round(frames * upstream.frame_ms / period))
        macs = sum(upstream_macs(shapes, samples, units, lam).values())
        prices.append(Price(lam, period, macs / seconds))
    return Calibration(model_checksum(upstream), {}, {"nominal": seconds}, prices)


def lam_for_budget(
    calibration: Calibration | Sequence[Price],
    *,
    max_rtf: float | None = None,
    max_macs_per_second: float | None = None,
) -> float:
    """Smallest lambda that keeps within a budget.

    Between two measured lambdas the cost is taken as a straight line. It is convex in
    lambda, so that this errs on the cheap side. A lambda that seems cheaper than a
    larger one is taken to cost as much (noise), except 0, at which nothing predicts.

    Args:
        calibration: what each lambda costs.
        max_rtf: largest real-time factor.
        max_macs_per_second: largest number of MACs per second of audio.

    Raises:
        ValueError: no budget, two, one that is not positive, prices without times, or
            a budget that no calibrated lambda fits.
    """
    if (max_rtf is None) == (max_macs_per_second is None):
        raise ValueError("lam='auto' needs one of max_rtf and max_macs_per_second")
    name = "rtf" if max_macs_per_second is None else "macs_per_second"
    budget = max_rtf if max_macs_per_second is None else max_macs_per_second
    assert budget is not None
    if not budget > 0:
        raise ValueError(f"max_{name} must be above zero; got {budget}")
    prices = calibration.prices if isinstance(calibration, Calibration) else calibration
    costs = {price.lam: getattr(price, name) for price in prices}
    if not costs or None in costs.values():
        raise ValueError(f"max_{name} needs measured times; {_REMEDY}")
    if costs.get(0.0, float("inf")) <= budget:
        return 0.0
    lams = sorted(lam for lam in costs if lam > 0)
    fits: float | None = None
    dearest = 0.0  # of all lambdas from here on
    for lam in reversed(lams):
        above, dearest = dearest, max(dearest, costs[lam])
        if dearest > budget:
            if fits is not None:
                share = (dearest - budget) / (dearest - above)
                fits = lam + share * (fits - lam)
            break
        fits = lam
    if fits is None:
        cheapest = min(costs, key=lambda lam: costs[lam])
        raise ValueError(
            f"no lambda keeps {name} within {budget:g}: the least is "
            f"{costs[cheapest]:.4g}, at lambda {cheapest:g}. Raise the budget, or "
            "take a smaller model"
        )
    return fits


def set_lam(
    model: nn.Module,
    lam: Lam | str,
    *,
    max_rtf: float | None = None,
    max_macs_per_second: float | None = None,
    calibration: str | Path | Calibration | None = None,
) -> Lam:
    """Set lambda at evaluation for everything in ``model`` that compresses.

    Args:
        model: any module, e.g. ``speech2text.asr_model``.
        lam: a number in [0, 2]; a 0-d or (B,) tensor; or ``"auto"``, the least
            compression that fits one of the two budgets.
        max_rtf: real-time factor to keep within, on this machine.
        max_macs_per_second: multiply-accumulates per second of audio to keep within.
        calibration: ``calibration.json`` or the folder it is in, where
            ``python -m espnet_ofa.bin.bench calibrate`` has left it; not needed for the
            MACs of an :class:`OFAUpstream`, which then are by formula, at the
            predictor's target rate.

    Returns:
        The lambda that was set.

    Raises:
        ValueError: nothing there compresses by lambda, ``lam`` is out of range, budgets
            without "auto", or see :func:`lam_for_budget`, :func:`find_calibration`.
    """
    budgets = {"max_rtf": max_rtf, "max_macs_per_second": max_macs_per_second}
    if isinstance(lam, str):
        if lam != AUTO:
            raise ValueError(f"lambda must be a number or 'auto'; got {lam!r}")
        if calibration is None:
            if max_macs_per_second is None or not isinstance(model, OFAUpstream):
                raise ValueError(f"lam='auto' needs calibration=; {_REMEDY}")
            calibration = nominal_calibration(model)
        elif not isinstance(calibration, Calibration):
            device = next(model.parameters()).device
            calibration = find_calibration(
                calibration,
                model_checksum(model),
                here=None if max_rtf is None else machine(device),
            )
        lam = lam_for_budget(calibration, **budgets)
    elif calibration is not None or any(v is not None for v in budgets.values()):
        raise ValueError("a budget goes with lam='auto' only")
    fix_lam(model, lam)
    return lam
