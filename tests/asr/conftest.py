"""A tiny corpus, a tiny upstream and a tiny ASR config. ESPnet is imported once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

pytest.importorskip("espnet2")

from espnet_ofa.plugin import register
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

register()

TOKENS = ["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"]
TEXTS = ["a b", "b a c", "c", "a a", "b", "c a"]
UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 16, "mels": 20},
    "dim": 16,
    "layers": 2,
    "heads": 2,
    "ff_dim": 32,
    "pos_kernel": 8,
    "pos_groups": 2,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data dir with wav.scp and text: a tone for each letter, in noise."""
    root = tmp_path_factory.mktemp("corpus")
    generator = torch.Generator().manual_seed(0)
    scp, text = [], []
    for i, words in enumerate(TEXTS):
        tones = [
            torch.sin(torch.arange(6000) * 2 * math.pi * (300 + 400 * ord(c)) / 16000)
            for c in words.replace(" ", "")
        ]
        wave = 0.3 * torch.cat(tones)
        wave = wave + 0.02 * torch.randn(len(wave), generator=generator)
        path = root / f"utt{i}.wav"
        soundfile.write(path, wave.numpy(), 16000)
        scp.append(f"utt{i} {path}")
        text.append(f"utt{i} {words}")
    (root / "wav.scp").write_text("\n".join(scp) + "\n")
    (root / "text").write_text("\n".join(text) + "\n")
    (root / "tokens.txt").write_text("\n".join(TOKENS) + "\n")
    return root


@pytest.fixture
def upstream_dir(tmp_path: Path) -> Path:
    """A pre-trained upstream, saved."""
    up = OFAUpstream(UpstreamConfig.from_dict(UPSTREAM))
    up.save_pretrained(tmp_path / "upstream")
    return tmp_path / "upstream"


@pytest.fixture
def run_train(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train in this process, by default with ESPnet's own command on all of the corpus;
    returns the exp folder."""
    from espnet2.bin.asr_train import main as espnet

    def run(
        conf: dict, *options: str, name: str = "exp", main=espnet, home: Path = corpus
    ) -> Path:
        exp = tmp_path / name
        config = tmp_path / f"{name}.yaml"
        conf = {"num_att_plot": 0, "num_workers": 0, "log_level": "ERROR", **conf}
        config.write_text(yaml.safe_dump(conf))
        data = []
        for split in ("train", "valid"):
            for file, kind, form in (
                ("wav.scp", "speech", "sound"),
                ("text", "text", "text"),
            ):
                data += [
                    f"--{split}_data_path_and_name_and_type",
                    f"{home / file},{kind},{form}",
                ]
            data += [f"--{split}_shape_file", str(home / "wav.scp")]
        main(
            cmd=[
                "--config",
                str(config),
                "--output_dir",
                str(exp),
                "--token_list",
                str(corpus / "tokens.txt"),
                *("--token_type", "word", "--ngpu", "0", "--batch_type", "unsorted"),
                *("--batch_size", "3", "--max_epoch", "1", "--valid_batch_size", "6"),
                *("--use_matplotlib", "false", "--use_tensorboard", "false"),
                *data,
                *options,
            ]
        )
        return exp

    return run


@pytest.fixture(scope="session")
def tiny() -> dict[str, int]:
    """Small sizes for ESPnet's encoders and decoders."""
    return {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 2,
    }


@pytest.fixture(scope="session")
def upstream_conf() -> dict:
    """Config of a tiny upstream, as a mapping."""
    return UPSTREAM


@pytest.fixture
def build(tiny: dict[str, int]) -> Callable[..., torch.nn.Module]:
    """ESPnet's own ``ASRTask.build_model`` on a tiny config."""
    from espnet2.tasks.asr import ASRTask

    def run(**conf) -> torch.nn.Module:
        parser = ASRTask.get_parser()
        args = parser.parse_args(["--output_dir", "x", "--token_type", "word"])
        args.token_list = list(TOKENS)
        base = {
            "encoder": "transformer",
            "encoder_conf": {**tiny, "input_layer": "linear"},
            "decoder": None,
            "model_conf": {"ctc_weight": 1.0},
            "normalize": None,
        }
        for key, value in {**base, **conf}.items():
            assert hasattr(args, key), key
            setattr(args, key, value)
        return ASRTask.build_model(args)

    return run


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two utterances of one second and half a second, with labels."""
    return {
        "speech": torch.randn(2, 16000),
        "speech_lengths": torch.tensor([16000, 8000]),
        "text": torch.tensor([[2, 3, 3], [4, -1, -1]]),
        "text_lengths": torch.tensor([3, 1]),
    }
