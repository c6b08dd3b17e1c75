"""Packing what ESPnet trained: nothing is missing, nothing of the training shows."""

from __future__ import annotations

import csv
import functools
import inspect
import json
import os
import re
import resource
import shutil
import sys
import zipfile
from contextlib import contextmanager

import pytest
import torch
import trained as tiny
import yaml
from espnet2.bin.asr_inference import Speech2Text
from espnet2.tasks import asr as asr_task
from espnet2.tasks.asr import ASRTask
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file

from espnet_ofa.bin import publish as command
from espnet_ofa.checksums import verify
from espnet_ofa.report.budget import model_checksum
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.zoo.card import About, task_card
from espnet_ofa.zoo.fetches import FETCHING, find_fetches
from espnet_ofa.zoo.pack import archive, pack_asr, pack_upstream


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.train(tmp_path_factory.mktemp("far") / "away_from_here")


@torch.no_grad()
def decode(speech2text, wave) -> tuple:
    """Text, and the encoder's output at the model's own lambda."""
    speech = torch.from_numpy(tiny.soundfile.read(wave, dtype="float32")[0])
    text = speech2text(speech.numpy())[0][0]
    encoded = speech2text.asr_model.encode(speech[None], torch.tensor([len(speech)]))[0]
    return text, encoded


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The package, its zip, and what the model gave."""
    out = tmp_path_factory.mktemp("packed")
    config, weights = run.exp / "config.yaml", run.exp / run.checkpoint
    before = decode(Speech2Text(config, weights, ctc_weight=1.0, beam_size=1), run.wave)
    command.main(
        ["pack_asr", "--exp_dir", str(run.exp), "--model_file", run.checkpoint]
        + ["--out_dir", str(out / "model"), "--zip", str(out / "model.zip")]
        + ["--datasets", "noise", "--license", "cc-by-4.0"]
    )
    return out / "model", out / "model.zip", before


@pytest.fixture
def gone(run):
    """The training's folder is not where it was."""
    moved = run.root.with_name("moved")
    run.root.rename(moved)
    yield
    moved.rename(run.root)


def load_config(folder) -> tuple[dict, dict]:
    """meta.yaml and the config that it names."""
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    name = meta["yaml_files"]["asr_train_config"]
    return meta, yaml.safe_load((folder / name).read_text())


def test_unmodified_espnet_loads_it_from_the_folder_alone(run, packed, gone):
    folder, _, (text, encoded) = packed
    meta, _ = load_config(folder)
    files = {k: folder / v for k, v in (meta["yaml_files"] | meta["files"]).items()}
    assert set(files) <= set(inspect.signature(Speech2Text.__init__).parameters)
    files = {k: str(v) for k, v in files.items()}
    again = decode(Speech2Text(**files, ctc_weight=1.0, beam_size=1), run.wave)
    assert again[0] == text and torch.equal(again[1], encoded)


def test_the_snippet_runs(run, packed, gone, tmp_path, monkeypatch, capsys):
    from espnet_model_zoo.downloader import ModelDownloader

    folder, archived, _ = packed
    shutil.copy(run.wave, tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    init = functools.partialmethod(ModelDownloader.__init__, cachedir=tmp_path / "zoo")
    monkeypatch.setattr(ModelDownloader, "__init__", init)
    card = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    with open(folder / "report/report.csv", encoding="utf-8") as f:
        best = min(csv.DictReader(f), key=lambda row: float(row["wer"]))
    assert ("set_lam(" in code[1]) == (best["adaptive"] == "False")
    exec(code[1].replace("USER/NAME", str(archived)), {})
    assert set(capsys.readouterr().out.strip()) <= set("ab ")


def test_what_is_in_it(packed):
    folder, archived, _ = packed
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == {
        *("README.md", "checksums.json", "meta.yaml", "model.safetensors"),
        *(f"asr_tiny/{n}" for n in ("bpe.model", "config.yaml", "valid.loss.ave.pth")),
        *(f"report/report.{ending}" for ending in ("csv", "json", "md")),
        "report/tradeoff_test.png",
    }
    assert verify(folder)
    with zipfile.ZipFile(archived) as file:
        assert set(file.namelist()) == found and file.testzip() is None
    pickled = torch.load(folder / "asr_tiny/valid.loss.ave.pth", weights_only=True)
    safe = load_file(folder / "model.safetensors")
    assert pickled.keys() == safe.keys()
    assert all(torch.equal(pickled[k], safe[k]) for k in safe)


def test_nothing_of_the_training_shows(run, packed):
    folder, archived, _ = packed
    for path in (*folder.rglob("*"), archived):
        if path.is_file():
            data = path.read_bytes()
            assert b"away_from_here" not in data, path
            assert str(run.root.parent).encode() not in data, path
    _, config = load_config(folder)
    assert config["output_dir"] is None
    assert config["train_data_path_and_name_and_type"] == []
    assert (
        config["frontend_conf"]["upstream"]
        == config["frontend_conf"]["upstream_config"]
    )
    assert config["optim_conf"] == {"lr": 0.01}  # not a path: stays


def test_a_learned_lambda_is_settled(packed):
    folder, _, _ = packed
    _, config = load_config(folder)
    state = load_file(folder / "model.safetensors")
    raw = state["frontend.upstream.policy.learnable.raw"]
    learned = torch.sigmoid(100 * raw).item()
    assert config["frontend_conf"]["lam_conf"]["init"] == pytest.approx(learned)
    assert abs(learned - 0.3) > 1e-3  # it moved
    card = (folder / "README.md").read_text()
    assert f"was learned with the weights: {learned:.4f}, from 0.3 at the start" in card


def test_a_learned_lambda_of_an_encoder(tmp_path):
    torch.manual_seed(0)
    conf = {"encoder": "transformer", "lam": "adaptive", "stem_dim": 16}
    conf["encoder_conf"] = tiny.CONFIG["encoder_conf"]
    options = {"encoder": "ofa", "encoder_conf": conf, "token_type": "char"}
    options |= {"model_conf": {"ctc_weight": 1.0}, "token_list": ["<blank>", "a", "#"]}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(options))
    flags = ["--config", str(tmp_path / "train.yaml"), "--output_dir", "x"]
    args = ASRTask.get_parser().parse_args(flags)
    model = ASRTask.build_model(args)
    with torch.no_grad():
        model.encoder.policy.learnable.raw.fill_(0.012)
    exp = tmp_path / "exp"  # a name that is a setting in every config
    exp.mkdir()
    torch.save(model.state_dict(), exp / "1epoch.pth")
    (exp / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    folder = pack_asr(exp, "1epoch.pth", tmp_path / "out")
    meta, config = load_config(folder)
    value = torch.sigmoid(torch.tensor(1.2)).item()
    settled = config["encoder_conf"]["lam_conf"]["init"]
    assert settled == pytest.approx(value)
    assert meta["files"] == {"asr_model_file": "exp_/1epoch.pth"}
    assert "Lambda of the encoder was learned" in (folder / "README.md").read_text()
    assert "Not decoded" in (folder / "README.md").read_text()


def test_the_card_tells_the_run(packed):
    folder, _, _ = packed
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "espnet" and data["license"] == "cc-by-4.0"
    assert data["datasets"] == ["noise"] and data["language"] == "en"
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    (result,) = data["model-index"][0]["results"]
    names = [metric["name"] for metric in result["metrics"]]
    assert names[0] == "WER (%) at lambda 0" and len(names) == 3
    rows = (folder / "report/report.csv").read_text().splitlines()[1:]
    assert len(rows) == 3
    text = card.content
    assert "![errors against frame period and MACs](report/tradeoff_test.png)" in text
    assert "python3 -m x --output_dir asr_tiny --ngpu 0" in text
    assert "<details><summary>config.yaml</summary>" in text and "lam_conf" in text
    assert re.search(r"\| 20\.0 +\|", text) and "device" in text


def test_equal_input_equal_package(run, tmp_path):
    sums = []
    for name in ("one", "two"):
        pack_upstream(run.root / "upstream", tmp_path / name)
        archive(tmp_path / name, tmp_path / f"{name}.zip")
        sums.append((tmp_path / f"{name}.zip").read_bytes())
    assert sums[0] == sums[1]


def test_an_upstream(run, tmp_path):
    source = run.root / "upstream"
    rate = {"data_dir": f"{run.root}/data", "target_period_ms": 90}
    points = [{"lam": 0, "period_ms": 20}, {"lam": 1, "period_ms": 88}]
    measured_with = {
        "model_sha256": model_checksum(OFAUpstream.from_pretrained(source))
    }
    text = json.dumps({**rate, "measured": points, **measured_with})
    (source / "rate.json").write_text(text)
    about = About(license="mit", datasets=("noise",), language=None)
    folder = pack_upstream(source, tmp_path / "ssl", about=about)
    assert verify(folder)
    names = {p.name for p in folder.iterdir()}
    rest = {"README.md", "checksums.json", "preprocessor_config.json", "rate.json"}
    assert names == {"config.json", "config.yaml", "model.safetensors", *rest}
    assert all(str(run.root).encode() not in p.read_bytes() for p in folder.iterdir())
    ours = OFAUpstream.from_pretrained(folder).state_dict()
    for name, value in OFAUpstream.from_pretrained(source).state_dict().items():
        assert torch.equal(value, ours[name])
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "mit" and "language" not in data
    assert re.search(r"\| 1 +\| 88\.0 ", card.content)


@pytest.mark.parametrize("found", [{}, {"model_sha256": "0" * 64}])
def test_a_rate_of_other_weights_is_left_out(run, tmp_path, caplog, found):
    source = tmp_path / "ssl"
    shutil.copytree(run.root / "upstream", source)
    rate = {"target_period_ms": 90, "measured": [{"lam": 1, "period_ms": 88}]}
    (source / "rate.json").write_text(json.dumps({**rate, **found}))
    folder = pack_upstream(source, tmp_path / "out")
    assert not (folder / "rate.json").exists()
    assert "not measured" in (folder / "README.md").read_text()
    assert "rate.json: measured with other weights" in caplog.text


def test_results_of_an_earlier_training_are_left_out(run, tmp_path, caplog):
    exp = tmp_path / run.exp.name  # of the same name, its checkpoint too
    shutil.copytree(run.exp, exp)
    folder = pack_asr(exp, run.checkpoint, tmp_path / "out")
    assert "WER (%) at lambda" in (folder / "README.md").read_text()
    state = torch.load(exp / run.checkpoint, weights_only=True)
    (exp / run.checkpoint).unlink()
    torch.save({k: v + 1 for k, v in state.items()}, exp / run.checkpoint)
    folder = pack_asr(exp, run.checkpoint, tmp_path / "out")
    assert "Not decoded" in (folder / "README.md").read_text()
    assert caplog.text.count("left out of the card") == 3


def test_an_upstream_that_onnx_cannot_hold(run, tmp_path, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise ImportError("exporting needs onnx: pip install it")

    monkeypatch.setattr("espnet_ofa.zoo.onnx.require_packages", refuse)
    out = tmp_path / "ssl"
    arguments = ["pack_upstream", "--upstream_dir", str(run.root / "upstream")]
    arguments += ["--out_dir", str(out)]
    with pytest.raises(ImportError, match="exporting needs onnx"):
        command.main([*arguments, "--onnx", "true"])
    assert not out.exists()
    command.main([*arguments, "--onnx", "auto"])
    assert "no model.onnx in the package: exporting needs onnx" in caplog.text
    assert verify(out) and not (out / "model.onnx").exists()


def copy_of(run, tmp_path):
    """The training, to be broken."""
    exp = tmp_path / "exp"
    shutil.copytree(run.exp, exp, ignore=shutil.ignore_patterns("decode_*"))
    return exp


def test_a_missing_file_is_named(run, tmp_path):
    exp, out = copy_of(run, tmp_path), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"nothing/config\.yaml: expected"):
        pack_asr(tmp_path / "nothing", "x.pth", out)
    with pytest.raises(FileNotFoundError, match=r"x\.pth: no such.*'valid\.loss\.ave"):
        pack_asr(exp, "x.pth", out)
    with pytest.raises(FileNotFoundError, match=r"no/bpe\.model: the config names it"):
        pack_asr(exp, run.checkpoint, out, bpemodel="no/bpe.model")
    with pytest.raises(ValueError, match=r"data\.model: not a sentencepiece model"):
        (tmp_path / "data.model").write_text("some text")
        pack_asr(exp, run.checkpoint, out, bpemodel=tmp_path / "data.model")
    with pytest.raises(FileNotFoundError, match="expected a folder with config.yaml"):
        pack_upstream(tmp_path / "nothing", out)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_checkpoint_that_does_not_fit(run, tmp_path):
    exp, out = copy_of(run, tmp_path), tmp_path / "out"
    with pytest.raises(
        ValueError, match=r"checkpoint\.pth: expected a state .*for resuming"
    ):
        pack_asr(exp, "checkpoint.pth", out)
    torch.save({"model": {}, "optimizers": []}, exp / "more.pth")
    with pytest.raises(ValueError, match=r"found dict with model, optimizers\. Give"):
        pack_asr(exp, "more.pth", out)
    path = exp / run.checkpoint
    path.write_bytes(path.resolve().read_bytes()[:-500])
    with pytest.raises(ValueError, match="expected a state dict .* a damaged file"):
        pack_asr(exp, run.checkpoint, out)
    path.unlink()
    state = torch.load(run.exp / run.checkpoint, weights_only=True)
    state["surplus"] = state.pop("ctc.ctc_lo.weight")
    torch.save(state, path)
    message = rf"{exp}/config\.yaml .*: {path} does .*ctc\.ctc_lo\.weight.*surplus"
    with pytest.raises(ValueError, match=message) as refused:
        pack_asr(exp, run.checkpoint, out)
    assert ".out" not in str(refused.value)  # the draft, which is gone
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["model"] = "espnet"  # ESPnet's own says nothing of it
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    message = rf"^{path} does .*missing: ctc\.ctc_lo\.weight.*surplus"
    with pytest.raises(ValueError, match=message):
        pack_asr(exp, run.checkpoint, out)
    state["ctc.ctc_lo.weight"] = state.pop("surplus")[:, :1]
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"{path} does not fit: .*ctc_lo") as refused:
        pack_asr(exp, run.checkpoint, out)
    assert ".out" not in str(refused.value) and "again" not in str(refused.value)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_only_packages_are_replaced(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("ten years")
    with pytest.raises(FileExistsError, match="out: expected an earlier package"):
        pack_upstream(run.root / "upstream", out)
    (out / "thesis.tex").unlink()
    pack_upstream(run.root / "upstream", out)
    before = (out / "checksums.json").read_text()
    with pytest.raises(FileNotFoundError):
        pack_asr(tmp_path / "nothing", "x.pth", out)
    assert (out / "checksums.json").read_text() == before
    pack_upstream(run.root / "upstream", out)


def test_errors_are_one_line(tmp_path, monkeypatch):
    arguments = ["--upstream_dir", str(tmp_path / "no"), "--out_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["publish", "pack_upstream", *arguments])
    with pytest.raises(SystemExit, match="^Error: .*no: expected a folder"):
        command.main()


@pytest.fixture
def upstream(run, tmp_path):
    """A copy of the upstream in a folder of its training, to be changed."""
    shutil.copytree(run.root / "upstream", tmp_path / "ssl_mine" / "upstream")
    return tmp_path / "ssl_mine" / "upstream"


def test_nothing_of_a_cluster_shows(run, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "gpu7.cluster")
    exp = copy_of(run, tmp_path)
    config = yaml.safe_load((exp / "config.yaml").read_text())
    scp = tmp_path / "data" / "rir.scp"
    scp.parent.mkdir()
    scp.write_text("rir1 /secret/corpus/rir1.wav\n")
    (tmp_path / "teacher" / "x").mkdir(parents=True)
    config |= {
        "dist_init_method": f"file://{tmp_path}/.dist_init",
        "dist_master_addr": "gpu7.cluster",
        "preprocessor_conf": {"rir_scp": str(scp), "other": "data/rir.scp"},
        "wandb_name": "gpu7.cluster",
        "scheduler_conf": {"teacher": "teacher/x", "log": f"--out={tmp_path}/x/y.log"},
    }
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    (exp / "train.log").write_text(
        "# Running on gpu7.cluster\n# Started at Sat Nov 21\n"
        f"# PATH=/opt/a/b:{tmp_path}/c python3 -m espnet_ofa.x --output_dir {exp}\n"
    )
    monkeypatch.chdir(tmp_path)
    folder = pack_asr(exp, run.checkpoint, tmp_path / "out")
    texts = [p.read_bytes() for p in folder.rglob("*") if p.is_file()]
    for trace in (str(tmp_path), "gpu7", "/secret", "teacher/x"):
        assert not any(trace.encode() in text for text in texts), trace
    _, packed = load_config(folder)
    assert packed["dist_init_method"] is None and packed["dist_master_addr"] is None
    assert packed["preprocessor_conf"] == {"rir_scp": None, "other": "rir.scp"}
    assert packed["scheduler_conf"] == {"teacher": "x", "log": "--out=y.log"}
    assert not list(folder.rglob("*.scp"))
    command = "PATH=b:c python3 -m espnet_ofa.x --output_dir exp"
    assert f"```sh\n{command}\n```" in (folder / "README.md").read_text()


def test_what_would_show_is_refused(upstream, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "gpu7.cluster")
    out = tmp_path / "out"
    rate = {"target_period_ms": 90, "measured": [{"lam": 1, "period_ms": 88}]}
    rate["model_sha256"] = model_checksum(OFAUpstream.from_pretrained(upstream))
    text = json.dumps({**rate, "device": "xgpu7.clusters"})
    (upstream / "rate.json").write_text(text)
    pack_upstream(upstream, out)  # part of another name
    text = json.dumps({**rate, "device": "cpu of gpu7.cluster"})
    (upstream / "rate.json").write_text(text)
    with pytest.raises(ValueError, match=r"rate\.json of .*: device names a folder"):
        pack_upstream(upstream, out)
    (upstream / "rate.json").unlink()
    monkeypatch.setattr("espnet_ofa.zoo.pack.hide_folders", str)  # if it missed one
    about = About(command=f"python3 -m x --y {upstream}/z")
    with pytest.raises(ValueError, match=r"README\.md of .*: line \d+ names a folder"):
        pack_upstream(upstream, out, about=about)
    about = About(command="python3 -m x --api_key 0123456789abcdef0123")
    with pytest.raises(
        ValueError, match=r"^README\.md of the .* line \d+ holds .* token"
    ):
        pack_upstream(upstream, out, about=about)
    assert verify(out) and not list(tmp_path.glob(".out*"))


def test_a_package_of_what_is_listed_is_replaced(upstream, tmp_path, monkeypatch):
    out, link = tmp_path / "out", tmp_path / "link"
    pack_upstream(upstream, out)
    link.symlink_to(out)
    pack_upstream(upstream, link, about=About(license="mit"))
    assert link.is_symlink() and "mit" in (out / "README.md").read_text()
    (out / "deep").mkdir()
    (out / "deep" / "thesis.tex").write_text("ten years")
    with pytest.raises(FileExistsError, match=r"found deep/thesis\.tex, which"):
        pack_upstream(upstream, out)
    assert (out / "deep" / "thesis.tex").read_text() == "ten years" and verify(out)
    (out / "deep" / "thesis.tex").unlink()
    monkeypatch.chdir(out)
    with pytest.raises(FileExistsError, match="the working folder"):
        pack_upstream(upstream, ".")
    assert verify(out)
    (out / "checksums.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileExistsError, match=r"checksums\.json that is none"):
        pack_upstream(upstream, out)
    assert not list(tmp_path.glob(".out*"))


def test_a_package_stays_when_its_place_cannot_be_taken(
    upstream, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    pack_upstream(upstream, out, about=About(license="mit"))
    replace = os.replace

    def fail(source, target):
        if str(target) == str(out) and not str(source).endswith(".old"):
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no"):
        pack_upstream(upstream, out)
    assert verify(out) and "mit" in (out / "README.md").read_text()
    assert not list(tmp_path.glob(".out*"))


def test_an_upstream_is_called_as_its_folder(upstream, tmp_path):
    log = "# python3 -m espnet_ofa.x --lr 1\n"
    (upstream.parent / "train.log").write_text(log)
    card = (pack_upstream(upstream, tmp_path / "a") / "README.md").read_text()
    assert "# ssl_mine\n" in card and "--lr 1" in card
    other = upstream.rename(upstream.with_name("small"))
    card = (pack_upstream(other, tmp_path / "b") / "README.md").read_text()
    assert "# small\n" in card and "--lr 1" not in card and "license: unknown" in card


def test_broken_files_are_named(run, upstream, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for text in ("{", "[]", '{"target_period_ms": 90}'):
        (upstream / "rate.json").write_text(text)
        with pytest.raises(ValueError, match=r"rate\.json: expected the frame periods"):
            pack_upstream(upstream, out)
    exp = copy_of(run, tmp_path)

    def full(*args, **kwargs):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("espnet_ofa.zoo.weights.save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors: cannot be written"):
        pack_asr(exp, run.checkpoint, out)
    for text in ("- a", "token_list: x"):
        (exp / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml: expected a"):
            pack_asr(exp, run.checkpoint, out)
    (exp / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config\.yaml: expected YAML"):
        pack_asr(exp, run.checkpoint, out)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


@contextmanager
def largest_file(size: int):
    """As if a disk were full: no file may be larger than ``size`` bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_packing_a_recogniser_onto_a_full_disk(run, tmp_path):
    """An earlier package and its zip stay, and nothing of the new ones."""
    out, zipped = tmp_path / "out", tmp_path / "out.zip"
    arguments = ["pack_asr", "--exp_dir", str(run.exp), "--out_dir", str(out)]
    arguments += ["--model_file", run.checkpoint, "--zip", str(zipped)]
    command.main(arguments)
    before, archived = (out / "README.md").read_text(), zipped.read_bytes()
    weights = (run.exp / run.checkpoint).stat().st_size
    arguments += ["--license", "mit"]
    for size in (2000, weights - 1):  # the config, the checkpoint
        message = f"{out}: no room for it .*File too large.*Free some"
        with largest_file(size), pytest.raises(OSError, match=message):
            command.main(arguments)
        assert verify(out) and (out / "README.md").read_text() == before
    message = f"{zipped}: no room for it"
    largest = max(p.stat().st_size for p in out.rglob("*") if p.is_file())
    with largest_file(largest + 100), pytest.raises(OSError, match=message):
        command.main(arguments)
    assert verify(out) and "license: mit" in (out / "README.md").read_text()
    assert zipped.read_bytes() == archived
    assert not list(tmp_path.glob(".out*"))


S3PRL = {"frontend_conf": {"upstream": "hubert"}, "multilayer_feature": True}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"frontend": "s3prl", "frontend_conf": S3PRL}, "frontend: s3prl"),
        ({"frontend": "huggingface"}, "frontend: huggingface"),
        ({"encoder": "whisper"}, "encoder: whisper"),
        ({"token_type": "hugging_face", "bpemodel": "gpt2"}, "token_type: hugging"),
    ],
)
def test_a_second_download_is_refused(run, tmp_path, changes, found):
    exp = copy_of(run, tmp_path)
    config = yaml.safe_load((exp / "config.yaml").read_text())
    (exp / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    with pytest.raises(ValueError, match=f"found {found}.*, which fetches .*--allow"):
        pack_asr(exp, run.checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_download_is_on_the_card():
    fused = {"frontend": "fused", "frontend_conf": {"frontends": [{}]}}
    assert find_fetches(fused) == []
    odd: list = [["s3prl"], {"s3prl": 1}, None]
    for value in odd:
        assert find_fetches({"frontend": value, "encoder": value}) == []
        assert find_fetches({"frontend": "fused", "frontend_conf": value}) == []
    fused["frontend_conf"]["frontends"][0]["frontend_type"] = "s3prl"
    for config in (fused, {"frontend": "s3prl", "frontend_conf": S3PRL}):
        card = task_card("x", config, (), (), 1, None, About())
        kind = config["frontend"]
        assert f"Not self-contained: loading it makes `frontend: {kind}`" in card
    card = task_card("x", tiny.CONFIG, (), (), 1, None, About())
    assert "Not self-contained" not in card


@pytest.mark.parametrize("role", ["frontend", "encoder", "postencoder", "decoder"])
def test_all_that_fetch_are_known(role):
    """ESPnet's classes that download, or read what somebody has downloaded."""
    words = r"from_pretrained\(|download|whisper\.load_model\("
    classes = getattr(asr_task, f"{role}_choices").classes
    found = {
        name
        for name, kind in classes.items()
        if not kind.__module__.startswith("espnet_ofa")
        and re.search(words, inspect.getsource(kind))
    }
    assert found == FETCHING[role]
