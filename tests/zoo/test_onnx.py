"""Exported files compute what PyTorch computes, in any number of threads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_ofa import __version__
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.extractor import LogMelExtractor
from espnet_ofa.zoo.onnx_graph import PowerSpectrum

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from espnet_ofa.bin.export_onnx import main  # noqa: E402
from espnet_ofa.zoo import onnx as export  # noqa: E402
from espnet_ofa.zoo.onnx_check import check_agreement, speech_like  # noqa: E402
from espnet_ofa.zoo.onnx_runtime import OnnxUpstream  # noqa: E402

SHAPE = {"dim": 16, "layers": 2, "heads": 2, "ff_dim": 24, "pos_kernel": 4}
SHAPE |= {"pos_groups": 2}
LOGMEL = {"extractor": "logmel", "extractor_conf": {"dim": 12, "stem_layers": 1}}
CONV = {"extractor": "conv", "extractor_conf": {"dim": 8}}


def make(**conf) -> OFAUpstream:
    torch.manual_seed(0)
    return OFAUpstream(UpstreamConfig(**{**SHAPE, **LOGMEL, **conf})).eval()


def save(folder: Path, upstream: OFAUpstream) -> Path:
    upstream.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def upstream() -> OFAUpstream:
    return make()


@pytest.fixture(scope="module")
def exported(home: Path, upstream: OFAUpstream) -> export.Exported:
    """Log-mel and CIF, every hidden state, from a folder."""
    folder = save(home / "tiny", upstream)
    return export.export_onnx(folder, home / "all.onnx", outputs="all")


@pytest.fixture(scope="module")
def model(exported: export.Exported) -> OnnxUpstream:
    return OnnxUpstream(exported.path)


def close(got: np.ndarray, want: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return np.allclose(got, want.detach().numpy(), atol=tolerance, rtol=tolerance)


def test_the_exporter_has_compared(exported: export.Exported) -> None:
    assert 0 < exported.agreement.largest < 1e-4
    assert exported.agreement.runs == 21
    assert exported.size == exported.path.stat().st_size


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.5, 1.0, 1.3, 2.0])
def test_one_file_for_every_lambda_batch_and_length(
    model: OnnxUpstream, upstream: OFAUpstream, lam: float
) -> None:
    waves = [speech_like(n, seed=n) for n in (12345, 300, 16000, 401)]
    for wave, out in zip(waves, model(waves, lam), strict=True):
        want = upstream(torch.from_numpy(wave)[None], lam=lam)  # alone
        assert out.units.shape == (int(want.lengths), 16)
        for got, state in zip(out.hidden_states, want.hidden_states, strict=True):
            assert close(got, state[0])
        assert close(out.durations, want.durations[0], 1e-3)
        assert out.period_ms == pytest.approx(float(want.period_ms))


def test_threads_lose_nothing(exported: export.Exported) -> None:
    # ScatterND with addition did: threads shared a unit without a lock.
    wave = [speech_like(16000 * 12)]
    want = OnnxUpstream(exported.path, threads=1).run(wave, 1.9)["hidden_0"]
    many = OnnxUpstream(exported.path, threads=4)
    for _ in range(20):
        assert np.abs(many.run(wave, 1.9)["hidden_0"] - want).max() < 1e-4


def test_no_operator_that_threads_race_in(exported: export.Exported) -> None:
    for node in onnx.load(exported.path).graph.node:
        reduction = [x.s for x in node.attribute if x.name == "reduction"]
        assert node.op_type != "ScatterND" or reduction in ([], [b"none"])


def test_metadata_and_names(exported: export.Exported, model: OnnxUpstream) -> None:
    wanted = {
        "name": "tiny",
        "license": "cc-by-4.0",
        "espnet_ofa": __version__,
        "frame_ms": "20",
        "sample_rate": "16000",
        "lam_min": "0",
        "lam_max": "2",
        "compressor": "cif",
        "precision": "float32",
    }
    assert wanted.items() <= model.metadata.items()
    states = [f"hidden_{i}" for i in range(3)]
    assert model._outputs == [*states, "unit_lengths", "durations"]
    # Where the exporter ran is nobody's business.
    assert str(Path(export.__file__).parent).encode() not in exported.path.read_bytes()


# Tracing takes seconds, so no more models than needed, and few layers.
@pytest.mark.parametrize(
    ("conf", "options"),
    [
        ({**CONV, "compressor": "conv", "compressor_conf": {"factor": 3}}, {}),
        ({"compressor": "mean"}, {"opset": 20}),
    ],
    ids=["conv", "mean"],
)
def test_compressors_of_a_fixed_rate(home: Path, conf, options) -> None:
    upstream = make(**conf)
    done = export.export_onnx(upstream, home / "one.onnx", num_layers=0, **options)
    model = OnnxUpstream(done.path)
    wave = speech_like(7777)
    (out,) = model([wave])
    want = upstream(torch.from_numpy(wave)[None], num_layers=0)
    assert close(out.units, want.hidden_states[0][0])
    with pytest.raises(ValueError, match="rate is fixed"):
        model([wave], 0.5)


def test_told_of_its_rate(home: Path) -> None:
    upstream = make(condition=["durations", "lam"])
    assert upstream.condition is not None
    torch.nn.init.normal_(upstream.condition.out.weight, std=0.3)
    done = export.export_onnx(upstream, home / "told.onnx", num_layers=0)
    model = OnnxUpstream(done.path)
    wave = speech_like(9999)
    for lam in (0.0, 0.4, 1.3):
        (out,) = model([wave], lam)
        want = upstream(torch.from_numpy(wave)[None], lam=lam, num_layers=0)
        assert close(out.units, want.hidden_states[0][0])


def test_int8_from_the_command_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = make(**CONV, dim=64)
    folder, path = save(home / "conv", upstream), home / "int8.onnx"
    options = ["--num_layers", "1", "--license", "mit", "--out", str(path), "--int8"]
    main(["--upstream", str(folder), *options])
    assert str(path) in capsys.readouterr().out
    model = OnnxUpstream(path)
    assert model.metadata["precision"] == "int8"
    assert model.metadata["license"] == "mit"
    graph = onnx.load(path).graph
    nodes = [node.op_type for node in graph.node]
    # project; qkv, out and two of the feed-forward block. Not the predictor's.
    assert nodes.count("MatMulInteger") == 1 + 4
    arrays = [onnx.numpy_helper.to_array(x) for x in graph.initializer]
    weights = [x.astype(int) for x in arrays if x.dtype == np.int8 and x.ndim == 2]
    # Seven bits: without VNNI, sums of two products with eight overflow.
    assert len(weights) == 1 + 4 and all(32 < abs(x).max() <= 64 for x in weights)
    wave = speech_like(30000)
    for lam in (0.0, 0.4, 1.0):
        (got,) = model([wave], lam)
        want = upstream(torch.from_numpy(wave)[None], lam=lam, num_layers=1)
        assert close(got.durations, want.durations[0], 1e-3)
        top = want.hidden_states[-1][0].detach().numpy()
        error = np.linalg.norm(got.units - top) / np.linalg.norm(top)
        assert 1e-4 < error < 0.05
    with pytest.raises(FileNotFoundError, match="/nowhere.* no such file"):
        main(["--upstream", str(home / "nowhere"), *options])


def test_log_mel_without_fft() -> None:
    extractor = LogMelExtractor(4, mels=20)
    wave = torch.from_numpy(speech_like(16000))[None]
    want = extractor.power(wave, 90)
    got = PowerSpectrum(extractor)(wave, 90)
    # In float64 they agree: what is left is the rounding of either.
    exact = LogMelExtractor(4, mels=20).double().power(wave.double(), 90)
    size = exact.amax()
    assert (got - exact).abs().max() < 1e-5 * size
    assert (want - exact).abs().max() < 1e-5 * size


def test_lambda_out_of_range_shows(model: OnnxUpstream) -> None:
    feed = {"wave": np.ones((1, 8000), np.float32), "lengths": np.array([8000])}
    for lam in (-0.1, 2.1, 50.0):
        feed["lam"] = np.array(lam, np.float32)
        hidden, *_ = model.session.run(None, feed)
        assert np.isnan(hidden).all()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("waves", "lam", "message"),
    [
        ([], 0.5, "at least one wave"),
        ([np.zeros((2, 400), np.float32)], 0.5, "wave 0: expected one channel"),
        ([np.zeros(800), np.zeros(0)], 0.5, "wave 1: expected one channel"),
        ([np.zeros(800, np.int16)], 0.5, "divide 16 bit integers"),
        ([np.full(800, np.nan)], 0.5, "wave 0: holds NaN"),
        ([np.zeros(800)], None, r"lam must lie in \[0, 2\]; got None"),
        ([np.zeros(800)], 2.5, r"lam must lie in \[0, 2\]; got 2.5"),
    ],
)
def test_bad_input(model: OnnxUpstream, waves, lam, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(waves, lam)


@pytest.mark.parametrize(
    ("conf", "options", "message"),
    [
        ({}, {"opset": 23}, "opset must be between 18 and 22; got 23"),
        ({}, {"outputs": "top"}, "outputs must be last or all; got 'top'"),
        ({}, {"num_layers": 3}, "num_layers must be between 0 and 2; got 3"),
        (
            {"chunk": {"ms": 320, "left": 1}},
            {},
            "with chunk cannot be exported to ONNX",
        ),
        (
            {"compressor": "squeeze", "compressor_conf": {"groups": 2}},
            {},
            "compressor 'squeeze' cannot be exported to ONNX; expected one of none",
        ),
    ],
)
def test_bad_options(home: Path, conf, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export.export_onnx(make(**conf), home / "never.onnx", **options)
    assert not (home / "never.onnx").exists()


def test_a_file_that_computes_something_else_is_not_kept(
    home: Path, exported: export.Exported, upstream: OFAUpstream
) -> None:
    def other(wave, lengths, lam):
        out = upstream(wave, lengths, lam)
        states = {f"hidden_{i}": x for i, x in enumerate(out.hidden_states)}
        states["hidden_2"] = states["hidden_2"] + 3e-4
        return {**states, "unit_lengths": out.lengths, "durations": out.durations}

    proto, path = onnx.load(exported.path), home / "never.onnx"
    facts = {x.key: x.value for x in proto.metadata_props}
    with pytest.raises(ValueError, match=r"at lambda 0.0, waves of \[40000\] samples"):
        export.write_checked(proto, path, facts, other, int8=False)
    assert not list(home.glob("*never*"))

    def longer(wave, lengths, lam):
        out = other(wave, lengths, lam)
        return {**out, "unit_lengths": out["unit_lengths"] - 1}

    with pytest.raises(ValueError, match=r"expected \[123\] units, found \[124\]"):
        check_agreement(exported.path, longer)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'espnet-ofa\[onn"):
        export.export_onnx(make(), home / "never.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        OnnxUpstream(home / "all.onnx")


def test_not_a_model_of_ours(home: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent.onnx: no such ONNX file"):
        OnnxUpstream(home / "absent.onnx")
    (home / "torn.onnx").write_bytes(b"torn")
    with pytest.raises(ValueError, match="torn.onnx: ONNX Runtime cannot load it"):
        OnnxUpstream(home / "torn.onnx")


def test_the_helper_needs_no_torch(run_python, exported, tmp_path: Path) -> None:
    code = """if True:
        import sys, numpy as np
        from espnet_ofa.zoo.onnx_runtime import OnnxUpstream
        (out,) = OnnxUpstream(sys.argv[1])([np.zeros(16000, np.float32)], lam=0.5)
        print(len(out.durations) == len(out.units), "torch" in sys.modules)
    """
    assert run_python(code, {}, str(exported.path), cwd=tmp_path) == "True False\n"
