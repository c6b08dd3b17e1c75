"""The command line, as a recipe calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from espnet_ofa.bin.data import get_parser, main
from espnet_ofa.data.kaldi_dir import DataDir


def test_stages_2_to_5(make_data, tmp_path, capsys):
    make_data("ogg").write(tmp_path / "train")

    def run(*words: str | Path | int) -> None:
        assert main([str(word) for word in words]) == 0

    run(
        *("perturb", "--data_dir", tmp_path / "train", "--out_dir", tmp_path / "sp"),
        *("--audio_dir", tmp_path / "sp_audio", "--nj", 2),
    )
    run("format", "--data_dir", tmp_path / "sp", "--out_dir", tmp_path / "org")
    run(
        *("filter", "--data_dir", tmp_path / "org", "--out_dir", tmp_path / "raw"),
        *("--max_wav_duration", "1.6", "--log", tmp_path / "dropped"),
    )
    assert "kept 8 of 12" in capsys.readouterr().out
    assert len((tmp_path / "dropped").read_text().splitlines()) == 4
    run(
        *(
            "tokens",
            "--text",
            tmp_path / "raw" / "text",
            "--out_dir",
            tmp_path / "char",
        ),
        *("--token_type", "char"),
    )
    assert (tmp_path / "char" / "tokens.txt").read_text().startswith("<blank>\n<unk>\n")
    run(
        *("tokens", "--text", tmp_path / "raw" / "text", "--out_dir", tmp_path / "bpe"),
        *("--token_type", "bpe", "--nbpe", 19),
    )
    assert len((tmp_path / "bpe" / "tokens.txt").read_text().splitlines()) == 19
    run("validate", "--audio", tmp_path / "raw")
    data = DataDir.read(tmp_path / "raw")
    assert data.num_samples is not None and data.boundaries is not None
    for utt in data.utterances:
        assert data.num_samples[utt] == pytest.approx(
            16000 * data.boundaries[utt].ends[-1], abs=0.1
        )
    run(
        *("split", "--data_dir", tmp_path / "raw", "--train_dir", tmp_path / "a"),
        *("--valid_dir", tmp_path / "b", "--valid_speakers", 2),
    )
    run("combine", "--out_dir", tmp_path / "c", tmp_path / "a", tmp_path / "b")
    assert DataDir.read(tmp_path / "c").text == data.text
    run(
        "subset",
        "--data_dir",
        tmp_path / "c",
        "--out_dir",
        tmp_path / "d",
        "--num_utts",
        3,
    )
    assert len(DataDir.read(tmp_path / "d")) == 3
    run("summary", tmp_path / "d")


def test_errors_are_one_message_and_status_1(make_data, tmp_path, capsys):
    data = make_data()
    data.write(tmp_path / "data")
    assert main(["validate", str(tmp_path / "data"), str(tmp_path / "no")]) == 1
    assert "no/wav.scp does not exist" in capsys.readouterr().err
    whole = Path(data.wav["anna-0"]).read_bytes()
    Path(data.wav["anna-0"]).write_bytes(whole[: len(whole) // 2])
    assert main(["validate", str(tmp_path / "data")]) == 0
    assert main(["validate", "--audio", str(tmp_path / "data")]) == 1
    assert "wav.scp: anna-0: " in capsys.readouterr().err
    text = str(tmp_path / "data" / "text")
    out = str(tmp_path / "tokens")
    command = ["tokens", "--text", text, "--out_dir", out, "--bpemode", "bpe"]
    assert main([*command, "--nbpe", "9999"]) == 1
    assert "error: --nbpe 9999 is too large" in capsys.readouterr().err
    assert not (tmp_path / "tokens" / "tokens.txt").exists()


@pytest.mark.parametrize(
    "command",
    ["perturb", "format", "filter", "tokens", "combine", "subset", "split", "validate"],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        get_parser().parse_args([command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_start_up_is_light():
    """These tools run dozens of times in a recipe: no torch, no ESPnet."""
    code = (
        "import sys; import espnet_ofa.bin.data; "
        "heavy = {'torch', 'espnet2', 'matplotlib', 'scipy'} & set(sys.modules); "
        "print(heavy); sys.exit(bool(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
