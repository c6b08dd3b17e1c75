"""A recogniser that ESPnet trained for one epoch, decoded, with a learned lambda."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import numpy as np  # noqa: E402
import sentencepiece  # noqa: E402
import soundfile  # noqa: E402
import yaml  # noqa: E402
from tiny import UPSTREAM  # noqa: E402

from espnet_ofa.bin import asr_inference  # noqa: E402
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig  # noqa: E402

TEXTS = {"u1": "ab ba", "u2": "baab", "u3": "abba b", "u4": "a bab"}
CONFIG = {
    "frontend": "ofa",
    "frontend_conf": {"lam": "adaptive", "lam_conf": {"init": 0.3}},
    "model": "ofa",
    "model_conf": {"ctc_weight": 1.0, "extract_feats_in_collect_stats": False},
    "encoder": "transformer",
    "encoder_conf": {
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 12,
        "num_blocks": 1,
        "input_layer": "linear",
    },
    "normalize": None,
    "optim": "adam",
    "optim_conf": {"lr": 0.01},
    "best_model_criterion": [["valid", "loss", "min"]],
    "keep_nbest_models": 1,
    "num_att_plot": 0,
    "num_workers": 0,
    "log_level": "ERROR",
    "use_matplotlib": False,
    "use_tensorboard": False,
}


class Trained(NamedTuple):
    """Where things are.

    Attributes:
        root: everything; a package may name nothing of it.
        exp: folder of the training.
        wave: an audio file outside of it.
    """

    root: Path
    exp: Path
    wave: Path
    checkpoint: str = "valid.loss.ave.pth"


def write_data(folder: Path) -> None:
    """Noise and texts, as a Kaldi-style directory."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    scp = []
    for utt in TEXTS:
        wave = 0.1 * noise.standard_normal(16000)
        soundfile.write(folder / f"{utt}.wav", wave.astype("float32"), 16000)
        scp.append(f"{utt} {folder / utt}.wav\n")
    (folder / "wav.scp").write_text("".join(scp))
    (folder / "text").write_text("".join(f"{k} {v}\n" for k, v in TEXTS.items()))


def train_tokens(folder: Path) -> tuple[Path, Path]:
    """A small sentencepiece model, and its tokens as a list."""
    (folder / "lines").write_text("\n".join(TEXTS.values()) * 20)
    sentencepiece.SentencePieceTrainer.Train(
        f"--input={folder}/lines --model_prefix={folder}/bpe --vocab_size=9 "
        "--model_type=bpe --minloglevel=2"
    )
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "bpe.model"))
    names = [pieces.IdToPiece(i) for i in range(3, len(pieces))]
    tokens = folder / "tokens.txt"
    tokens.write_text("\n".join(["<blank>", "<unk>", *names, "<sos/eos>"]) + "\n")
    return folder / "bpe.model", tokens


def train(root: Path) -> Trained:
    """Train, and decode at two lambdas and at the learned one."""
    from espnet2.bin.asr_train import main

    data = root / "data"
    write_data(data)
    bpemodel, tokens = train_tokens(root)
    upstream = OFAUpstream(UpstreamConfig.from_dict(UPSTREAM))
    upstream.save_pretrained(root / "upstream")
    config = root / "train.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    exp = root / "asr_tiny"
    options = ["--config", str(config), "--output_dir", str(exp), "--ngpu", "0"]
    options += ["--frontend_conf", f"upstream={root / 'upstream'}"]
    options += ["--token_type", "bpe", "--bpemodel", str(bpemodel)]
    options += ["--token_list", str(tokens), "--batch_type", "unsorted"]
    options += ["--batch_size", "2", "--max_epoch", "1", "--valid_batch_size", "4"]
    for split in ("train", "valid"):
        for file, kind, form in (
            ("wav.scp", "speech", "sound"),
            ("text", "text", "text"),
        ):
            options += [f"--{split}_data_path_and_name_and_type"]
            options += [f"{data / file},{kind},{form}"]
        options += [f"--{split}_shape_file", str(data / "wav.scp")]
    main(cmd=options)
    (exp / "train.log").write_text(f"# python3 -m x --output_dir {exp} --ngpu 0\n#\n")
    trained = Trained(root, exp, root.parent / "u1.wav")
    trained.wave.write_bytes((data / "u1.wav").read_bytes())
    options = ["--asr_train_config", str(exp / "config.yaml"), "--search", "greedy"]
    options += ["--asr_model_file", str(exp / trained.checkpoint)]
    options += ["--output_dir", str(exp / "decode_ctc"), "--test_set", f"test:{data}"]
    asr_inference.main([*options, "--lam", "0", "0.9", "own"])
    return trained
