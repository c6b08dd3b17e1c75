"""Turn a pre-training checkpoint into an upstream directory, and measure its rate.

Its ``target_rate`` is that of the segments of training, which tasks then hold.
``rate.json``, beside the weights, holds at each lambda the measured frame period and,
where training's validation targets cover the data, the ceiling: the share of masked
frames that carry the majority code of their unit.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import read_table
from espnet_ofa.files import write_text
from espnet_ofa.pretrain.masked import (
    draw_frame_mask,
    frames_inside,
    majority_hits,
    unit_mask_from_frames,
)
from espnet_ofa.pretrain.targets import check_targets
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.tables import PERIOD_TOLERANCE
from espnet_ofa.subsampling.rate import (
    FRAME_MS,
    lam_to_period_ms,
)
from espnet_ofa.upstream.audio import read_wave
from espnet_ofa.upstream.checkpoint import load_upstream, save_pretrained
from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.extractor import frame_lengths
from espnet_ofa.upstream.model import OFAUpstream

PREFIX = "upstream."


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
    if upstream.squeeze_policy is not None:
        upstream.squeeze_policy.set(conf["squeeze"])
    return upstream.eval()


def data_file(conf: Mapping, which: str, name: str) -> Path | None:
    """The file that training read ``name`` from, ``which`` being train or valid."""
    for path, its_name, _ in conf[f"{which}_data_path_and_name_and_type"]:
        if its_name == name:
            return Path(path)
    return None


def target_period(conf: Mapping) -> tuple[float, str]:
    """Frame period in ms that training aimed at for lambda 1, and where it is from.

    Raises:
        FileNotFoundError: trained on segments whose facts are gone.
    """
    segments = data_file(conf, "train", "boundaries")
    weights = conf.get("model_conf", {})
    guided = any(weights.get(x, 1) for x in ("segment_weight", "frame_weight"))
    if segments is None or not guided:
        rate = UpstreamConfig.from_dict(conf["upstream_conf"]).target_rate
        return lam_to_period_ms(1.0, mean_alpha=rate), "target_rate of the config"
    facts = segments.with_name("facts.json")
    if not facts.is_file():
        raise FileNotFoundError(
            f"{facts}: not found; expected the facts that ssl_targets wrote beside the "
            "segments of training. Run this from the folder of the training"
        )
    segment_ms = json.loads(facts.read_text(encoding="utf-8"))["segment_ms"]
    return segment_ms, f"segments of training, {segments}"


def read_labels(conf: Mapping, waves: Mapping[str, Tensor]) -> list[Tensor] | None:
    """(S,) codes of each utterance; None unless validation had targets for all.

    Raises:
        ValueError: names the utterance whose targets do not fit its audio.
    """
    path = data_file(conf, "valid", "targets")
    table = read_table(path) if path is not None and path.is_file() else {}
    if not waves.keys() <= table.keys():
        logging.warning("no ceiling: %s does not cover the data measured on", path)
        return None
    labels = {u: torch.tensor([int(x) for x in table[u].split()]) for u in waves}
    for utt, codes in labels.items():
        check_targets(len(codes), frame_lengths(len(waves[utt])), utt)
    return list(labels.values())


@torch.no_grad()
def measure(
    upstream: OFAUpstream,
    waves: Sequence[Tensor],
    lams: Sequence[float],
    labels: Sequence[Tensor] | None = None,
    **mask: float,
) -> list[dict[str, float]]:
    """Measure at each lambda, over all utterances together.

    Args:
        upstream: in eval mode.
        waves: (L,) samples each.
        lams: in the order wanted.
        labels: (S,) codes of each utterance, for the ceiling.
        **mask: ``span_ms`` and ``share`` of :func:`draw_frame_mask`, as in training.

    Returns:
        ``lam``, ``period_ms`` and, with labels, ``ceiling`` of each lambda.
    """
    random = torch.Generator().manual_seed(0)
    num_codes = 1 + max((int(codes.max()) for codes in labels or []), default=0)
    totals = torch.zeros(len(lams), 4, dtype=torch.float64)
    for i, wave in enumerate(waves):
        frames, n_frames = upstream.extract(wave[None], torch.tensor([len(wave)]))
        size = frames.shape[1]
        frame_mask = draw_frame_mask(n_frames, size, **mask, generator=random)
        for total, lam in zip(totals, lams, strict=True):
            out = upstream.compress(frames, n_frames, lam)
            if upstream.config.merge:
                top = upstream.encode_units(out)
                out = out._replace(lengths=top.lengths, durations=top.durations)
            total[:2] += torch.stack([n_frames.sum(), out.lengths.sum()])
            if labels is not None:
                unit_mask = unit_mask_from_frames(
                    frame_mask, out.durations, out.lengths
                )
                masked = frames_inside(unit_mask, out.durations, size)
                codes = labels[i][None]
                hits = majority_hits(codes, masked, out.durations, num_codes)
                total[2:] += torch.stack([masked.sum(), hits])
    rows = []
    for lam, total in zip(lams, totals.tolist(), strict=True):
        frames, units, masked, hits = total
        row = {"lam": lam, "period_ms": upstream.frame_ms * frames / units}
        rows.append(row if labels is None else {**row, "ceiling": hits / masked})
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


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Export and measure; writes ``rate.json`` beside the weights."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    upstream = load_from_espnet(args.train_config, args.model_file)
    with open(args.train_config, encoding="utf-8") as f:
        conf = yaml.safe_load(f)
    target, source = target_period(conf)
    if upstream.compressor.uses_lam:
        # The rate that tasks will hold is the one that alpha was guided to.
        if target <= FRAME_MS:
            raise ValueError(
                f"{source}: expected a period above the {FRAME_MS:g} ms of a frame, "
                f"found {target:g} ms: there would be nothing to compress"
            )
        upstream.config.compressor_conf["target_rate"] = FRAME_MS / target
    wav = list(DataDir.read(args.data_dir).wav.items())
    count = min(args.max_utts, len(wav))
    # Not the first ones, which are of few speakers.
    chosen = [wav[i * len(wav) // count] for i in range(count)]
    waves = {utt: torch.from_numpy(read_wave(path)) for utt, path in chosen}
    names = {"mask_span_ms": "span_ms", "mask_share": "share"}
    mask = {names[k]: v for k, v in conf["model_conf"].items() if k in names}
    labels = read_labels(conf, waves)
    lams = args.lams if upstream.compressor.uses_lam else [1.0]
    rows = measure(upstream, list(waves.values()), lams, labels, **mask)
    if not upstream.compressor.uses_lam:
        target, source = rows[0]["period_ms"], "measured: there is no lambda"
    save_pretrained(upstream, args.output_dir)
    report = {
        "target_period_ms": target,
        "target_from": source,
        "utterances": len(waves),
        "data_dir": str(args.data_dir),
        "measured": rows,
        "model_sha256": model_checksum(upstream),
    }
    write_text(Path(args.output_dir) / "rate.json", json.dumps(report, indent=2) + "\n")
    for row in rows:
        logging.info("%s", {key: round(value, 3) for key, value in row.items()})
        off = row["period_ms"] / target - 1
        if row["lam"] == 1 and abs(off) > PERIOD_TOLERANCE:
            logging.warning(
                "lambda 1 gives %.1f ms, %+.0f %% off the %.1f ms of the %s: train "
                "longer, or raise cardinality_weight or segment_weight",
                row["period_ms"],
                100 * off,
                target,
                source,
            )


if __name__ == "__main__":
    main()
