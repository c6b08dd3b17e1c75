"""Cache a teacher's hidden states for distillation.

Into ``OUT/NAME`` of each data directory go shards of hidden states at 20 ms, their
index ``teacher.scp`` and ``teacher.json``, which says whose they are. Training reads
the index as a field: ``OUT/NAME/teacher.scp,teacher,text``. An interrupted run of the
same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from espnet2.utils.nested_dict_action import NestedDictAction
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from espnet_ofa.bin.errors import one_line
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.pretrain.cache import DTYPES as FILE_DTYPES
from espnet_ofa.pretrain.cache import CacheWriter
from espnet_ofa.pretrain.distill import LAYERS
from espnet_ofa.pretrain.teacher import Teacher, load_configured
from espnet_ofa.upstream.audio import count_samples, read_wave
from espnet_ofa.upstream.extractor import frame_lengths


def count_frames(data: DataDir) -> dict[str, int]:
    """Frames of each utterance, from the headers of its files.

    Raises:
        FileNotFoundError, ValueError: not 16 kHz mono, by file name.
    """
    return {utt: frame_lengths(count_samples(data.wav[utt])) for utt in data.utterances}


def batches(
    utts: Sequence[str], frames: Mapping[str, int], seconds: float
) -> list[list[str]]:
    """Utterances, shortest first, in batches of at most so much audio with padding."""
    found: list[list[str]] = []
    for utt in utts:
        if not found or (len(found[-1]) + 1) * frames[utt] > 50 * seconds:
            found.append([])
        found[-1].append(utt)
    return found


def encode(
    utts: Sequence[str], data: DataDir, teacher: Teacher, layers: Sequence[int]
) -> dict[str, torch.Tensor]:
    """(S, layers, D) hidden states of each utterance of a batch, on the CPU."""
    device = next(teacher.parameters()).device
    waves = [torch.from_numpy(read_wave(data.wav[utt])) for utt in utts]
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    padded = pad_sequence(waves, batch_first=True).to(device)
    states, n_frames = teacher(padded, lengths, layers)
    states = states.cpu()
    return {
        u: states[i, :n]
        for i, (u, n) in enumerate(zip(utts, n_frames.tolist(), strict=True))
    }


def get_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data_dirs", nargs="+", required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--teacher", required=True, help="folder, file or hub id")
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument(
        "--teacher_conf",
        action=NestedDictAction,
        default={},
        help="as in training: dtype, and hints for encoders without a configuration",
    )
    parser.add_argument("--dtype", choices=[*FILE_DTYPES], default="float16")
    parser.add_argument("--shard_mb", type=float, default=256)
    parser.add_argument("--batch_seconds", type=float, default=60)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    return parser


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Encode and write what is missing."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    dirs = {Path(d).name: DataDir.read(d) for d in args.data_dirs}
    if len(dirs) != len(args.data_dirs):
        raise ValueError(
            f"--data_dirs must differ in their last part: {args.data_dirs}"
        )
    teacher = load_configured(args.teacher, args.teacher_conf)
    facts = teacher.cache_facts(args.layers, args.dtype)
    teacher.to(args.device)
    for name, data in dirs.items():
        out = Path(args.output_dir) / name
        writer = CacheWriter(out, facts, count_frames(data), args.shard_mb)
        missing = list(writer.missing())
        logging.info("%s: %d of %d shards", name, len(missing), len(writer.shards))
        for number, utts in tqdm(missing, desc=f"teacher {name}", mininterval=10):
            states = {}
            for batch in batches(utts, writer.frames, args.batch_seconds):
                states |= encode(batch, data, teacher, args.layers)
            writer.write(number, states)
        writer.finish()
        hours = sum(writer.frames.values()) / 50 / 3600
        size = sum(p.stat().st_size for p in out.glob("*.safetensors")) / 1e9
        logging.info("%s: %.2f h of audio in %.2f GB", name, hours, size)


if __name__ == "__main__":
    main()
