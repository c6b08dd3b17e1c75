#!/usr/bin/env python3
r"""How long each training of this recipe takes on the machine at hand, and its memory.

    local/throughput.py [--device cuda] [--gpus 8] [conf/train_ssl_960h.yaml ...]
    local/throughput.py --assume_tflops 312 --price_per_hour 2  # a GPU that is not here

Builds the model of every configuration at full size, takes a few steps on noise as the
trainer does (lambda drawn anew at each, autocast as configured, AdamW), and prints a
table. One step is one utterance on a CPU, on a GPU what one of ``--gpus`` gets of a
batch. Days are hours of audio over measured speed: they leave out loading, validation
and what several GPUs wait for each other.

With ``--assume_tflops`` nothing is timed: operations are counted, and speed is what a
GPU of that peak would reach at ``--assume_share`` of it. A plan, not a measurement.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from espnet_ofa.pretrain.distill import DistillationModel
from espnet_ofa.report.cost import flop_counter
from espnet_ofa.report.environment import cpu_name
from espnet_ofa.report.memory import peak_bytes
from espnet_ofa.report.tables import markdown_table
from espnet_ofa.tasks.ssl import OFASSLTask
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.extractor import SAMPLE_RATE, frame_lengths

CONF = Path(__file__).resolve().parents[1] / "conf"
TOKENS = 1000  # of --nbpe
TOKENS_PER_SECOND = 3.0  # few enough for 90 ms
SEGMENTS_PER_SECOND = 11.0


@dataclass
class Training:
    """A configuration and what it builds.

    Attributes:
        name: of the file.
        args: all options, as ESPnet's parser has them.
        model: with random weights.
    """

    name: str
    args: argparse.Namespace
    model: Any

    @property
    def updates(self) -> int | None:
        """Steps of the optimiser; None where the amount of data decides."""
        iters = self.args.num_iters_per_epoch
        return iters and iters * self.args.max_epoch // self.args.accum_grad

    def audio_hours(self, data_hours: float) -> float:
        """Audio that the whole training sees, passes and all."""
        if self.updates is None:
            return data_hours * self.args.max_epoch
        return self.updates * self.args.accum_grad * self.batch_seconds / 3600

    @property
    def batch_seconds(self) -> float:
        """Audio of a batch, on all GPUs: ASR's counts labels times vocabulary, too."""
        bins = SAMPLE_RATE
        if self.name.startswith("train_asr"):
            bins += TOKENS_PER_SECOND * TOKENS
        return self.args.batch_bins / bins


def base_encoder(folder: Path) -> Path:
    """A 20 ms encoder in the shape of HuBERT base, to distil from or to go on from."""
    if not folder.exists():
        OFAUpstream(UpstreamConfig.from_dict({"compressor": "none"})).save_pretrained(
            folder
        )
    return folder


def build(config: Path, folder: Path) -> Training:
    """What a training configuration builds.

    Args:
        config: ``train_ssl*.yaml`` or ``train_asr*.yaml``.
        folder: for an encoder of random weights and a token list, kept between calls.

    Raises:
        SystemExit: ESPnet's parser refuses it.
    """
    options = ["--config", str(config)]
    if config.name.startswith("train_ssl"):
        found = yaml.safe_load(config.read_text())
        if found.get("model") == "distill":
            options += ["--teacher", str(base_encoder(folder / "base"))]
        if found.get("upstream"):
            options += ["--upstream", str(base_encoder(folder / "base"))]
        task: Any = OFASSLTask
    else:
        from espnet_ofa.plugin import register

        register()
        from espnet2.tasks.asr import ASRTask as task

        ssl = yaml.safe_load((CONF / "train_ssl_960h.yaml").read_text())
        upstream, tokens = folder / "upstream.yaml", folder / "tokens.txt"
        upstream.write_text(yaml.safe_dump(ssl["upstream_conf"]))
        names = ["<blank>", "<unk>", *map(str, range(TOKENS - 3)), "<sos/eos>"]
        tokens.write_text("".join(f"{name}\n" for name in names))
        options += ["--token_list", str(tokens), "--frontend_conf", "fs=16k"]
        options += ["--frontend_conf", f"upstream={upstream}"]
        # What is measured is the longer part of the training.
        options += ["--frontend_conf", "freeze_updates=0"]
        options += ["--init_param", "a finished model"]  # for lambda alone; not read
    args = task.get_parser().parse_args(options)
    return Training(config.stem, args, task.build_model(args))


def make_batch(training: Training, utterances: int, seconds: float) -> list[Tensor]:
    """Noise and labels, all utterances equally long."""
    samples = round(seconds * SAMPLE_RATE)
    batch = [torch.randn(utterances, samples), torch.full((utterances,), samples)]

    def labels(count: int, kinds: int) -> list[Tensor]:
        numbers = torch.randint(2, kinds - 1, (utterances, count))
        return [numbers, torch.full((utterances,), count)]

    if not training.name.startswith("train_ssl"):
        return batch + labels(round(seconds * TOKENS_PER_SECOND), TOKENS)
    if isinstance(training.model, DistillationModel):
        return batch
    frames = frame_lengths(samples)
    ends = torch.linspace(0, frames, round(seconds * SEGMENTS_PER_SECOND) + 1)[1:]
    ends = ends.round().long().unique().repeat(utterances, 1)
    segments = [ends, torch.full((utterances,), ends.shape[1])]
    return batch + labels(frames, training.args.num_codes) + segments


class Step:
    """One step of the trainer."""

    def __init__(self, training: Training, batch: list[Tensor], device: str) -> None:
        self.model = training.model.to(device).train()
        self.batch = [tensor.to(device) for tensor in batch]
        self.device = device
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-5)
        self.amp = bool(training.args.use_amp) and device == "cuda"
        self.scaler = torch.amp.GradScaler(device, enabled=self.amp)
        self.clip = training.args.grad_clip

    def __call__(self) -> float:
        """Loss."""
        with torch.autocast(self.device, torch.float16, enabled=self.amp):
            loss, *_ = self.model(*self.batch)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return float(loss.detach())  # waits for the GPU


def measure(training: Training, args: argparse.Namespace) -> dict[str, Any]:
    """What a few steps tell.

    Returns:
        ``speed``: hours of audio per hour; ``flops`` of a second of audio, forward and
        backward, mean over draws of lambda, None where time was measured; ``bytes``:
        weights, optimiser, and a step's peak on this machine; ``batch_seconds`` of
        audio in that step.
    """
    crop = getattr(training.args, "crop_seconds", None)
    seconds = args.seconds or crop or 12.3  # LibriSpeech's mean
    utterances = 1
    if args.device == "cuda":
        share = training.batch_seconds / args.gpus
        utterances = max(round(share / seconds), 1)
    torch.manual_seed(0)
    step = Step(training, make_batch(training, utterances, seconds), args.device)
    step()  # warm-up; makes the optimiser's states
    audio = args.steps * utterances * seconds
    flops = None
    if args.assume_tflops:
        with flop_counter() as counter:
            for _ in range(args.steps):
                step()
        flops = counter.get_total_flops() / audio
        speed = args.assume_tflops * 1e12 * args.assume_share / flops
    else:
        start = time.perf_counter()
        for _ in range(args.steps):
            step()
        speed = audio / (time.perf_counter() - start)
    held = sum(p.numel() * p.element_size() for p in step.model.parameters())
    states = step.optimizer.state.values()
    held += sum(t.numel() * t.element_size() for s in states for t in s.values())
    return {
        "speed": speed,
        "flops": flops,
        "batch_seconds": utterances * seconds,
        "bytes": held + peak_bytes(step, args.device),
    }


def row(training: Training, found: dict[str, Any], args: argparse.Namespace) -> list:
    """A line of the table."""
    hours = training.audio_hours(args.data_hours)
    updates = "-" if training.updates is None else f"{training.updates:,}"
    device_hours = hours / found["speed"]
    price = args.price_per_hour
    return [
        training.name,
        updates,
        f"{hours:,.0f}",
        "-" if found["flops"] is None else f"{found['flops'] / 1e9:.3g}",
        f"{found['speed']:,.{0 if found['speed'] > 100 else 2}f}",
        f"{device_hours / 24:,.1f}",
        "-" if price is None else f"{price * device_hours:,.0f}",
        f"{found['bytes'] / 1e9:.1f} at {found['batch_seconds']:.0f} s",
    ]


HEADER = ["configuration", "updates", "audio (h)", "GFLOP per s of audio"]
HEADER += ["audio h per hour", "days on one", "cost", "memory (GB)"]


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", type=Path, help="by default all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--gpus", type=int, default=8, help="that share a batch")
    parser.add_argument("--seconds", type=float, help="of an utterance")
    parser.add_argument("--steps", type=int, default=4, help="that are timed")
    parser.add_argument(
        "--data_hours", type=float, default=960, help="where epochs are passes"
    )
    parser.add_argument("--price_per_hour", type=float, help="of one device")
    parser.add_argument(
        "--assume_tflops", type=float, help="peak of a GPU, as its maker says"
    )
    parser.add_argument(
        "--assume_share", type=float, default=0.3, help="of the peak that is reached"
    )
    return parser


def main(cmd: list[str] | None = None) -> None:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    where = f"{cpu_name()}, {torch.get_num_threads()} threads"
    if args.device == "cuda":
        where = torch.cuda.get_device_name()
    configs = args.configs or sorted(CONF.glob("train_*.yaml"))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for config in configs:
            training = build(config, Path(folder))
            rows.append(row(training, measure(training, args), args))
            print(" | ".join(rows[-1]), flush=True)
    if args.assume_tflops:
        where = (
            f"Planned, not measured: {args.assume_share:.0%} of {args.assume_tflops:g} "
            "TFLOP/s"
        )
    print(f"\n{where}; PyTorch {torch.__version__}\n\n{markdown_table(HEADER, rows)}")


if __name__ == "__main__":
    main()
