"""Turn a pre-training checkpoint into an upstream directory, and measure its rate."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
import yaml
from torch import Tensor

from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import write_text
from espnet_ofa.subsampling.rate import DEFAULT_MEAN_ALPHA, lam_to_period_ms
from espnet_ofa.upstream.checkpoint import load_upstream, save_pretrained
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.model import OFAUpstream

PREFIX = "upstream."
TOLERANCE = 0.15


def load_from_espnet(train_config: str | Path, model_file: str | Path) -> OFAUpstream:
    """The upstream inside a pre-training checkpoint.

    Args:
        train_config: ``config.yaml`` of the training.
        model_file: its checkpoint, e.g. ``valid.loss.ave.pth``.

    Raises:
        ValueError: the checkpoint does not fit the config; names every key.
    """
    with open(train_config, encoding="utf-8") as f:
        conf = yaml.safe_load(f)
    upstream = OFAUpstream(UpstreamConfig.from_dict(conf["upstream_conf"]))
    state = torch.load(model_file, map_location="cpu", weights_only=True)
    own = {
        k[len(PREFIX) :]: v
        for k, v in state.items()
        if k.startswith(PREFIX) and not k.startswith(f"{PREFIX}policy.")
    }
    load_upstream(upstream, own, str(model_file))
    return upstream.eval()


@torch.no_grad()
def measure_periods(
    upstream: OFAUpstream, waves: Sequence[Tensor], lams: Sequence[float]
) -> list[dict[str, float]]:
    """Measured frame period in ms at each lambda, over all utterances together."""
    rows = []
    totals = [[0, 0] for _ in lams]
    for wave in waves:
        frames, n_frames = upstream.extract(wave[None], torch.tensor([len(wave)]))
        for total, lam in zip(totals, lams, strict=True):
            out = upstream.compress(frames, n_frames, lam)
            total[0] += int(n_frames.sum())
            total[1] += int(out.lengths.sum())
    for lam, (frames, units) in zip(lams, totals, strict=True):
        rows.append({"lam": lam, "period_ms": upstream.frame_ms * frames / units})
    return rows


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--train_config", required=True, help="config.yaml of training")
    parser.add_argument("--model_file", required=True, help="checkpoint (.pth)")
    parser.add_argument("--data_dir", required=True, help="data to measure on")
    parser.add_argument("--max_utts", type=int, default=100, help="utterances measured")
    parser.add_argument(
        "--lams", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1]
    )
    parser.add_argument("--output_dir", required=True, help="where the upstream goes")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Export and measure; writes ``rate.json`` beside the weights."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    upstream = load_from_espnet(args.train_config, args.model_file)
    wav = DataDir.read(args.data_dir).wav
    paths = list(wav.values())[: args.max_utts]
    waves = [torch.from_numpy(soundfile.read(p, dtype="float32")[0]) for p in paths]
    rows = measure_periods(upstream, waves, args.lams)
    rate = upstream.config.compressor_conf.get("target_rate", DEFAULT_MEAN_ALPHA)
    report = {
        "target_period_ms": lam_to_period_ms(1.0, mean_alpha=rate),
        "utterances": len(waves),
        "data_dir": str(args.data_dir),
        "measured": rows,
    }
    save_pretrained(upstream, args.output_dir)
    write_text(Path(args.output_dir) / "rate.json", json.dumps(report, indent=2) + "\n")
    for row in rows:
        logging.info("lambda %.2f: %.1f ms", row["lam"], row["period_ms"])
        off = row["period_ms"] / report["target_period_ms"] - 1
        if row["lam"] == 1 and abs(off) > TOLERANCE:
            logging.warning(
                "lambda 1 gives %.1f ms, %+.0f %% off the target of %.1f ms: train "
                "longer, or raise cardinality_weight or segment_weight",
                row["period_ms"],
                100 * off,
                report["target_period_ms"],
            )


if __name__ == "__main__":
    main()
