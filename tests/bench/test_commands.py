"""``bench`` on tiny sizes: what is written, and whether it holds together."""

import json

import pytest
import soundfile
import torch

import espnet_ofa
from espnet_ofa.bench import hubert, worker
from espnet_ofa.bench.calibrate import calibrate_upstream
from espnet_ofa.bench.encoders import make_waves
from espnet_ofa.bin import bench
from espnet_ofa.report.budget import load_calibrations
from espnet_ofa.report.cost import measure_macs
from espnet_ofa.report.profile import UpstreamEncode
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

SHAPE = {
    "extractor_conf": {"dim": 8},
    "dim": 16,
    "heads": 2,
    "ff_dim": 24,
    "pos_kernel": 4,
    "pos_groups": 2,
}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Jobs run in this process, which saves starting Python twenty times.

    They pass through JSON as they would.
    """

    def run(job, *, processes, threads, allocator):
        assert allocator == ("release" if job["kind"] == "memory" else "keep")
        answer = [worker.run(json.loads(json.dumps(job))) for _ in range(processes)]
        return json.loads(json.dumps(answer))

    monkeypatch.setattr(bench, "run_fresh", run)


def call(tmp_path, *options) -> dict:
    bench.main(
        [
            *options,
            *("--quick", "--rounds=1", "--processes=2", "--most_seconds=0.02"),
            *("--out", str(tmp_path), "--name=found"),
        ]
    )
    assert (tmp_path / "found.png").stat().st_size > 10_000
    text = (tmp_path / "found.md").read_text()
    assert "- Git hash: `" in text and "- threads: `" in text
    assert "![" in text and "(found.png)" in text
    return json.loads((tmp_path / "found.json").read_text())


def test_operator(tmp_path):
    found = call(tmp_path, "operator")
    assert {point["study"] for point in found["points"]} == {
        "sides",
        "lambda",
        "length",
    }
    for point in found["points"]:
        assert {"espnet_ofa", "espnet_ofa, num_units", "copy"} <= {*point["sides"]}
        frames = 4 * point["batch"] * point["frames"] * point["dim"]
        units = frames // point["frames"] * point["units"]
        both = (3 * frames + 2 * units) if point["backward"] else frames + units
        assert point["bytes"] == both
        for side in point["sides"].values():
            assert 0 < side["low"] <= side["seconds"] <= side["high"]
    assert "to the power of" in (tmp_path / "found.md").read_text()


def test_operator_keeps_its_memory_goals():
    """Exact counts: at most 1.2 times frames and units, 2.3 times with backward."""
    job = {"kind": "memory", "side": "espnet_ofa", "device": "cpu", "dtype": "float32"}
    for backward, goal in ((False, 1.2), (True, 2.3)):
        point = {"batch": 2, "frames": 400, "dim": 768, "backward": backward}
        found = worker.run({**job, "point": point})
        assert 1.0 < found["over_io"] <= goal


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_upstream(tmp_path, dtype):
    options = ["--layers=1", "--batch=2", "--mixed", "--lams", "0", "1"]
    options += ["--dtype", dtype, "--extractors", "logmel", "--seconds=0.8"]
    growth = ["--growth", "0.5", "1"] if dtype == "fp32" else []
    found = call(tmp_path, "upstream", *options, *growth)
    sides = {side["name"]: side for side in found["sides"]}
    assert {"logmel, lambda 0", "logmel, lambda 1"} <= {*sides}
    slow, fast = sides["logmel, lambda 0"], sides["logmel, lambda 1"]
    assert slow["period_ms"] == 20.0 < fast["period_ms"]
    assert fast["units"] < slow["units"]
    for side in (slow, fast):
        assert side["ideal"] > 0
        assert {"extractor", "Transformer"} <= {*side["parts"]}
    baseline = sides.get("torchaudio HuBERT base, fp32")
    if baseline is not None:
        assert baseline["speedup"] == 1.0
        ratio = baseline["seconds"] / fast["seconds"]
        assert fast["speedup"] == pytest.approx(ratio)
    if growth:
        # Attention is a small part of so narrow a model: close to linear.
        for curve in found["growth"]["curves"]:
            assert 0.8 < curve["macs_exponent"] < 1.3


def test_onnx(tmp_path):
    pytest.importorskip("onnxruntime")
    options = ["--quick", "--rounds=1", "--processes=1", "--most_seconds=0.02"]
    options += [
        "--layers=1",
        "--dtypes=int8",
        "--lams",
        "0",
        "1",
        "--out",
        str(tmp_path),
    ]
    bench.main(["onnx", *options])
    rows = json.loads((tmp_path / "onnx-logmel-l1.json").read_text())["rows"]
    assert len(rows) == 3 * 2
    for lam in (0.0, 1.0):
        assert len({row["units"] for row in rows if row["lam"] == lam}) == 1
    text = (tmp_path / "onnx-logmel-l1.md").read_text()
    assert "| ONNX Runtime, int8 |" in text and "onnxruntime: `" in text


def test_streaming(tmp_path):
    options = [
        "--quick",
        "--rounds=1",
        "--processes=1",
        "--layers=1",
        "--lams",
        "0",
        "1",
    ]
    bench.main(["streaming", *options, "--out", str(tmp_path), "--name=found"])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["lam"] for row in rows] == [0.0, 1.0]
    assert rows[0]["units"] == 99 > rows[1]["units"] > 0  # 2 s, every 20 ms
    for row in rows:
        assert row["latency_ms"] == 335.0
        assert 0 < row["low"] <= row["seconds"] <= row["high"] <= row["worst"]
        assert row["rtf"] > 0 and row["offline"] > 0
    assert "| lambda |" in (tmp_path / "found.md").read_text()


def test_training(tmp_path):
    options = ["--batch=2", "--seconds=1", "--lams", "0", "1"]
    rows = call(tmp_path, "train", *options)["rows"]
    assert [row["lam"] for row in rows] == [0.0, 1.0]
    for row in rows:
        assert row["hours_per_hour"] == pytest.approx(2 / row["seconds"], rel=0.5)
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"], rel=0.5)
        assert row["peak_bytes"] > 1e6


@pytest.mark.parametrize("package", ["torchaudio", "transformers"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_hubert_is_hubert(package, dtype):
    pytest.importorskip(package)
    layers, shape = 2, hubert.TINY
    found, _ = hubert.find_hubert(layers, shape, dtype)
    name = f"{package} HuBERT, {layers} layers"
    model, encode = found[f"{name}, {dtype}"]
    wave, lengths = make_waves(2, 0.5, True)
    wave = wave.bfloat16() if dtype == "bf16" else wave
    with torch.inference_mode():
        out = encode(wave, lengths)
    states = out[0] if isinstance(out, tuple) else out.last_hidden_state
    assert states.shape == (2, 24, shape["dim"])
    plain, _ = hubert.find_hubert(layers, shape, "fp32")
    if dtype == "fp32":
        # What ours has without its compressor: the shapes are the same.
        config = UpstreamConfig(layers=layers, compressor="none", **shape)
        ours = sum(p.numel() for p in OFAUpstream(config).parameters())
        model, _ = plain[f"{name}, fp32"]
        theirs = sum(p.numel() for p in model.parameters())
        assert theirs == pytest.approx(ours, rel=1e-3)


def test_missing_packages_are_noted(monkeypatch):
    monkeypatch.setattr(hubert.importlib.util, "find_spec", lambda name: None)
    found, notes = hubert.find_hubert(1, hubert.TINY, "fp32")
    assert not found
    assert notes == [
        "torchaudio is left out: pip install torchaudio",
        "transformers is left out: pip install transformers",
    ]


@pytest.fixture
def upstream_dir(tmp_path):
    torch.manual_seed(0)
    config = UpstreamConfig(extractor="logmel", layers=1, **SHAPE)
    OFAUpstream(config).save_pretrained(tmp_path / "upstream")
    soundfile.write(tmp_path / "a.wav", 0.1 * torch.randn(16000).numpy(), 16000)
    return tmp_path / "upstream"


def test_calibrate_and_choose(upstream_dir, capsys):
    options = ["--audio", str(upstream_dir.parent / "a.wav"), "--quick"]
    bench.main(["calibrate", "--upstream", str(upstream_dir), *options])
    assert capsys.readouterr().out.splitlines()[-1].endswith("calibration.json")
    (found,) = load_calibrations(upstream_dir)
    assert [price.lam for price in found.prices] == [0.0, 0.5, 1.0]
    assert found.prices[0].period_ms == 20.0
    assert found.facts["audio_seconds"] == 1.0

    upstream = OFAUpstream.from_pretrained(upstream_dir)
    loose = 2 * max(price.rtf for price in found.prices)
    options = {"calibration": upstream_dir}
    assert espnet_ofa.set_lam(upstream, "auto", max_rtf=loose, **options) == 0.0
    assert upstream.policy() == 0.0
    middle = found.prices[1].macs_per_second
    lam = espnet_ofa.set_lam(upstream, "auto", max_macs_per_second=middle, **options)
    assert 0.0 < lam <= 0.5
    with pytest.raises(ValueError, match="no lambda keeps rtf within 1e-09"):
        espnet_ofa.set_lam(upstream, "auto", max_rtf=1e-9, **options)
    torch.nn.init.zeros_(upstream.project.weight)
    with pytest.raises(ValueError, match="made for other weights"):
        espnet_ofa.set_lam(upstream, "auto", max_rtf=loose, **options)
    # Measured again for an optimised one: both stand in the file.
    options = ["--audio", str(upstream_dir.parent / "a.wav"), "--quick"]
    options += ["--optimize=int8", "--upstream", str(upstream_dir)]
    bench.main(["calibrate", *options])
    plain, packed = load_calibrations(upstream_dir)
    assert plain == found
    assert packed.setup == {"optimized": "cpu, int8"}
    for one, other in zip(plain.prices, packed.prices, strict=True):
        assert one.macs_per_second == pytest.approx(other.macs_per_second, rel=1e-6)


def test_prices_are_medians_per_second_of_audio(clock, monkeypatch):
    """Passes of 0.7 (does not count), 0.9, 0.1 and 0.3 s a second; lambda 1: a half."""
    torch.manual_seed(0)
    config = UpstreamConfig(extractor="logmel", layers=1, **SHAPE)
    upstream = OFAUpstream(config).eval()
    encode, passes = UpstreamEncode.encode, {0.0: [], 1.0: []}
    # The first pass is of one wave only, to warm up; the others are of both.
    costs = [0.7] + 2 * [0.9] + 2 * [0.1] + 2 * [0.3]

    def slow(self, wave, lengths):
        seen = passes[self.lam]
        seen.append(int(lengths) / 16000)
        cost = costs[len(seen) - 1] if len(seen) <= len(costs) else 50.0  # of MACs
        clock.time += cost * seen[-1] / (1.0 + self.lam)
        return encode(self, wave, lengths)

    monkeypatch.setattr(UpstreamEncode, "encode", slow)
    waves = [torch.randn(16000), torch.randn(8000)]
    found = calibrate_upstream(upstream, waves, [1.0, 0.0], rounds=3)
    assert [price.lam for price in found.prices] == [0.0, 1.0]
    assert [price.rtf for price in found.prices] == pytest.approx([0.3, 0.15])
    for price in found.prices:
        assert passes[price.lam][:7] == [1.0, *3 * [1.0, 0.5]]
        macs = [measure_macs(UpstreamEncode(upstream, price.lam), x)[0] for x in waves]
        assert price.macs_per_second == pytest.approx(sum(macs) / 1.5)


def test_bad_options(tmp_path, upstream_dir, capsys):
    with pytest.raises(SystemExit):
        bench.main(["upstream", "--lams", "5"])
    assert "argument --lams: lambda must lie in [0, 2]" in capsys.readouterr().err
    wave = str(tmp_path / "a.wav")
    with pytest.raises(SystemExit, match="needs one of --asr and --upstream"):
        bench.main(["calibrate", "--audio", wave])
    with pytest.raises(SystemExit, match="needs --asr"):
        bench.main(["asr", "--audio", wave])
    with pytest.raises(FileNotFoundError, match="none: no such file or folder; give"):
        bench.main(["calibrate", "--upstream=x", "--audio", str(tmp_path / "none")])
    (tmp_path / "wav.scp").write_text("u1 sox a.wav |\n")
    with pytest.raises(ValueError, match="found commands; format the audio"):
        bench.main(["calibrate", "--upstream=x", "--audio", str(tmp_path)])
    soundfile.write(wave, torch.zeros(100, 2).numpy(), 8000)
    with pytest.raises(ValueError, match="expected 16 kHz mono, found 8000 Hz"):
        bench.main(["calibrate", "--upstream", str(upstream_dir), "--audio", wave])
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="no CUDA device"):
            bench.main(["operator", "--device=cuda"])
    with pytest.raises(FileNotFoundError, match=r"config.yaml: no such file; expected"):
        bench.main(["asr", "--asr", str(tmp_path), "--audio", wave])
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(FileNotFoundError, match="no checkpoint; looked for valid"):
        bench.main(["asr", "--asr", str(tmp_path), "--audio", wave])
