"""Recognition timed by part, calibrated, and decoded within a budget."""

import json
import logging

import pytest

pytest.importorskip("espnet2")

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import soundfile  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from espnet2.tasks.asr import ASRTask  # noqa: E402

from espnet_ofa.bench import worker  # noqa: E402
from espnet_ofa.bin import asr_inference, bench  # noqa: E402
from espnet_ofa.report.budget import load_calibrations  # noqa: E402
from espnet_ofa.report.stats import load_stats  # noqa: E402

INNER = {"output_size": 8, "attention_heads": 2, "linear_units": 12, "num_blocks": 1}
UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 12, "mels": 16},
    "dim": 8,
    "layers": 1,
    "heads": 2,
    "ff_dim": 12,
    "pos_kernel": 4,
    "pos_groups": 2,
}
ROLES = {
    "frontend": {
        "frontend": "ofa",
        "frontend_conf": {"upstream": UPSTREAM, "lam": 0.3},
        "encoder": "transformer",
        "encoder_conf": {**INNER, "input_layer": "linear"},
    },
    "encoder": {
        "frontend_conf": {"n_mels": 16},
        "encoder": "ofa",
        "encoder_conf": {"encoder": "transformer", "encoder_conf": INNER, "lam": 0.3},
    },
}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """An untrained model for each role, and a test set."""
    root = tmp_path_factory.mktemp("recognition")
    torch.manual_seed(3)
    for role, conf in ROLES.items():
        folder = root / role
        folder.mkdir()
        config = {
            **conf,
            "token_list": ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"],
            "token_type": "char",
            "decoder": "transformer",
            "decoder_conf": {k: INNER[k] for k in INNER if k != "output_size"},
            "normalize": None,
            "output_dir": str(folder),
        }
        (folder / "train.yaml").write_text(yaml.safe_dump(config))
        args = ASRTask.get_parser().parse_args([f"--config={folder}/train.yaml"])
        model = ASRTask.build_model(args)
        torch.save(model.state_dict(), folder / "valid.loss.best.pth")
        (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    data = root / "data"
    data.mkdir()
    scp = ""
    for name, seconds in (("u1", 0.6), ("u2", 0.9), ("u3", 0.5)):
        wave = 0.1 * torch.randn(int(16000 * seconds))
        soundfile.write(data / f"{name}.wav", wave.numpy(), 16000)
        scp += f"{name} {data}/{name}.wav\n"
    (data / "wav.scp").write_text(scp)
    return root


@pytest.mark.parametrize("role", ROLES)
def test_every_second_has_its_part(space, role, tmp_path, monkeypatch):
    def run(job, **_):
        return [worker.run(json.loads(json.dumps(job)))]

    monkeypatch.setattr(bench, "run_fresh", run)
    options = ["asr", "--asr", str(space / role), "--audio", str(space / "data")]
    options += ["--lams", "0", "1", "--beam_size=2", "--rounds=1", "--utterances=2"]
    bench.main([*options, "--out", str(tmp_path), "--name=asr"])
    rows = json.loads((tmp_path / "asr.json").read_text())["rows"]
    assert [(row["search"], row["lam"]) for row in rows] == [
        (search, lam) for search in ("greedy", "ctc", "joint") for lam in (0.0, 1.0)
    ]
    names = {"extractor", "compressor", "ESPnet encoder", "search", "other"}
    names |= {"Transformer"} if role == "frontend" else set()
    for row in rows:
        assert {*row["parts"]} == names
        assert all(seconds > 0 for seconds in row["parts"].values())
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"])
        assert row["rtf"] == pytest.approx(row["seconds"] / row["audio_seconds"])
        assert row["audio_seconds"] == pytest.approx(1.5)  # the first and the second
    assert rows[0]["period_ms"] < rows[1]["period_ms"]
    assert (tmp_path / "asr.png").stat().st_size > 10_000


def test_decoding_within_a_budget(space, tmp_path, caplog):
    folder, data = space / "frontend", space / "data"
    options = ["--asr", str(folder), "--audio", str(data), "--rounds=1"]
    bench.main(["calibrate", *options, "--lams", "0", "0.5", "1"])
    (found,) = load_calibrations(folder)
    assert found.setup["search"] == "greedy"
    assert [price.lam for price in found.prices] == [0.0, 0.5, 1.0]

    def decode(name, *options):
        model = [f"--asr_train_config={folder}/config.yaml"]
        model += [f"--asr_model_file={folder}/valid.loss.best.pth"]
        common = ["--num_workers=0", "--lam=auto", f"--test_set=t:{data}"]
        out = tmp_path / name
        common += [f"--output_dir={out}", "--log_level=INFO"]
        asr_inference.main([*model, *common, *options])
        (folder_,) = out.iterdir()
        return folder_.name, load_stats(folder_ / "t")

    budget = found.prices[1].macs_per_second
    greedy = ["--search=greedy"]
    with caplog.at_level(logging.INFO):
        name, stats = decode("macs", *greedy, f"--max_macs_per_second={budget:.0f}")
    assert stats.lam is not None and 0.45 < stats.lam <= 0.51
    assert name == f"lam{stats.lam:g}"
    assert stats.macs_per_second <= budget * 1.01
    assert "fits the budget" in caplog.text
    loose = 2 * max(price.rtf for price in found.prices)
    assert decode("time", *greedy, f"--max_rtf={loose}")[0] == "lam0"
    with pytest.raises(ValueError, match="other settings.*'search': 'beam'"):
        decode("beam", "--maxlenratio=-9", f"--max_rtf={loose}")
    with pytest.raises(ValueError, match="--lam auto goes with one of --max_rtf"):
        decode("none", *greedy)
    with pytest.raises(ValueError, match="needs one of max_rtf and max_macs"):
        decode("both", *greedy, "--max_rtf=1", "--max_macs_per_second=1")
    with pytest.raises(FileNotFoundError, match="bench calibrate"):
        decode("lost", *greedy, "--max_rtf=1", f"--calibration={data}")
