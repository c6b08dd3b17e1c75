"""Publish, list, pull and decode with what a user has; equal to the bit.

Packed are untrained models of all three variants. They are decoded here, from the
training directory; then that directory goes, and another process with empty caches
gets the models from the hub, by ESPnet's ways and by ours. ``ZOO_PYTHON`` may name the
interpreter of an environment with another ESPnet for that process.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shutil
import zipfile
from copy import deepcopy
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import sentencepiece  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
import user  # noqa: E402
import yaml  # noqa: E402
from espnet2.bin.asr_inference import Speech2Text  # noqa: E402
from espnet2.tasks.asr import ASRTask  # noqa: E402
from espnet_model_zoo.downloader import ModelDownloader  # noqa: E402
from huggingface_hub import HfApi  # noqa: E402

from espnet_ofa.asr.frontend import OFAFrontend  # noqa: E402
from espnet_ofa.bin import asr_inference  # noqa: E402
from espnet_ofa.zoo.pack import archive, pack_asr, pack_upstream  # noqa: E402
from espnet_ofa.zoo.publish import publish  # noqa: E402
from espnet_ofa.zoo.pull import load_asr  # noqa: E402

# Some are names that packed files and folders could have.
WORDS = ["exp", "report", ".", "frontend", "config.yaml", "asr", "a", "b"]
TOKENS = ["<blank>", "<unk>", "<space>", *WORDS, "<sos/eos>"]
UPSTREAM_CONF = yaml.safe_load("""
extractor: logmel
extractor_conf: {dim: 12, mels: 16}
dim: 8
layers: 1
heads: 2
ff_dim: 12
pos_kernel: 4
pos_groups: 2
""")
TRANSFORMER = {
    "output_size": 8,
    "attention_heads": 2,
    "linear_units": 12,
    "num_blocks": 1,
    "input_layer": "linear",
}


class World(NamedTuple):
    """Everything that was published, and what it gave before."""

    hub: Any
    wave: Path
    zips: dict[str, Path]
    local: dict[str, Any]
    training: Path  # where it was, now gone


def write_stats(path: Path) -> None:
    """Global mean and variance of 80 log-mel channels."""
    feats = np.random.default_rng(0).normal(-5, 3, (50, 80))
    sums = {"count": 50, "sum": feats.sum(0), "sum_square": (feats**2).sum(0)}
    np.savez(path, **sums)


def train_bpe(folder: Path) -> Path:
    """A small sentencepiece model."""
    (folder / "text").write_text("abba baab exp report\n" * 20)
    sentencepiece.SentencePieceTrainer.Train(
        f"--input={folder}/text --model_prefix={folder}/bpe --vocab_size=18 "
        "--model_type=bpe --minloglevel=2"
    )
    return folder / "bpe.model"


def variants(training: Path) -> dict[str, dict]:
    """Config of each variant, pointing into the training directory as configs do."""
    adapter = {"lam": 0.4, "lam_train": "uniform"}
    write_stats(training / "stats.npz")
    bpemodel = train_bpe(training)
    pieces = sentencepiece.SentencePieceProcessor(str(bpemodel))
    vocabulary = [pieces.IdToPiece(i) for i in range(3, len(pieces))]
    frontend = {"upstream": str(training / "upstream"), **adapter}
    return {
        "frontend": {"frontend": "ofa", "frontend_conf": frontend},
        "preencoder": {
            "preencoder": "ofa",
            "preencoder_conf": {"input_size": 80, "frame_ms": 8, **adapter},
            "normalize": "global_mvn",
            "normalize_conf": {"stats_file": str(training / "stats.npz")},
        },
        "encoder": {
            "model": "ofa",
            "encoder": "ofa",
            "encoder_conf": {
                "encoder": "transformer",
                "encoder_conf": TRANSFORMER,
                "stem_dim": 16,
                **adapter,
            },
            "token_list": ["<blank>", "<unk>", *vocabulary, "<sos/eos>"],
            "token_type": "bpe",
            "bpemodel": str(bpemodel),
        },
    }


def train(folder: Path, variant: dict) -> None:
    """Leave what ESPnet's training leaves, without the training."""
    torch.manual_seed(len(folder.name))
    config = {
        "encoder": "transformer",
        "encoder_conf": TRANSFORMER,
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 2, "linear_units": 12, "num_blocks": 1},
        "token_list": TOKENS,
        "token_type": "char",
        "normalize": None,
        **variant,
        "output_dir": str(folder),
    }
    folder.mkdir()
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    args = ASRTask.get_parser().parse_args(["--config", str(folder / "train.yaml")])
    model = ASRTask.build_model(args)
    torch.save(model.state_dict(), folder / "valid.acc.ave.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))


@pytest.fixture(scope="module")
def world(tmp_path_factory, shared_hub) -> World:
    root = tmp_path_factory.mktemp("world")
    training = root / "training"
    training.mkdir()
    noise = np.random.default_rng(1).normal(0, 0.1, 9000)
    soundfile.write(root / "u.wav", noise.astype("float32"), 16000)
    wave = torch.from_numpy(soundfile.read(root / "u.wav", dtype="float32")[0])

    torch.manual_seed(2)
    config = espnet_ofa.upstream.UpstreamConfig.from_dict(UPSTREAM_CONF)
    upstream = espnet_ofa.OFAUpstream(config).eval()
    upstream.save_pretrained(training / "upstream")
    publish(pack_upstream(training / "upstream", root / "packed-ssl"), "user/ssl")
    local = {"ssl": user.extract(upstream, wave)}
    other = espnet_ofa.OFAUpstream(config).eval()
    other.save_pretrained(training / "other")
    other_packed = pack_upstream(training / "other", root / "packed-other")
    publish(other_packed, "user/ssl", revision="v1")
    local["ssl@v1"] = user.extract(other, wave)
    zips = {}
    for name, variant in variants(training).items():
        exp = training / name
        train(exp, variant)
        speech2text = Speech2Text(
            exp / "config.yaml", exp / "valid.acc.ave.pth", **user.SEARCH
        )
        local[name] = user.recognise(speech2text, wave)
        packed = pack_asr(exp, exp / "valid.acc.ave.pth", root / f"packed-{name}")
        zips[name] = root / f"{name}.zip"
        archive(packed, zips[name])
        publish(packed, f"user/{name}")
    for number, member in enumerate(ALTERED):
        publish(root / "packed-encoder", f"user/altered{number}")
        files = shared_hub.files(f"user/altered{number}")
        files[member] = alter(member, files[member])
        zips[member] = root / f"altered{number}.zip"
        with zipfile.ZipFile(zips[member], "w") as file:
            for path, data in files.items():
                file.writestr(path, data)
    training.rename(root / "gone")
    return World(shared_hub, root / "u.wav", zips, local, training)


ASR = ["frontend", "preencoder", "encoder"]
ALTERED = [f"encoder/{name}" for name in ("config.yaml", "valid.acc.ave.pth")]


def alter(name: str, data: bytes) -> bytes:
    """Something that loads, and is not what was published."""
    if name.endswith(".yaml"):
        config = yaml.safe_load(data)
        config["token_list"][2:4] = config["token_list"][3:1:-1]
        return yaml.safe_dump(config).encode()
    state = torch.load(io.BytesIO(data), weights_only=True)
    state["ctc.ctc_lo.bias"] += 1
    torch.save(state, out := io.BytesIO())
    return out.getvalue()


UPSTREAM_JOBS = ["up:user/ssl", "up:user/ssl@v1"]
if find_spec("transformers") and "ZOO_PYTHON" not in os.environ:
    UPSTREAM_JOBS += ["auto:user/ssl", "auto:user/ssl@v1"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Home of a user, with all caches."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def pulled(world, run_python, elsewhere) -> dict[str, Any]:
    """What a user gets, by every way, from a process with empty caches."""
    jobs = [*UPSTREAM_JOBS]
    for name in ASR:
        jobs += [f"zoo:user/{name}", f"zip:{world.zips[name]}"]
        jobs += [f"ours:user/{name}", f"ours:{world.zips[name]}"]
    for number, member in enumerate(ALTERED):
        jobs += [f"zoo:user/altered{number}", f"zip:{world.zips[member]}"]
    return run_user(world, run_python, elsewhere, jobs)


def run_user(world: World, run_python, home: Path, jobs: list[str], **env: str) -> Any:
    env = {**world.hub.environment(home, token=None), **env}
    code = Path(user.__file__).read_text()
    out = run_python(code, env, str(world.wave), *jobs, cwd=home)
    return json.loads(out.split("RESULT ")[1])


@pytest.mark.skipif("ZOO_PYTHON" not in os.environ, reason="no other interpreter")
def test_the_other_interpreter_has_another_espnet(run_python, tmp_path):
    code = "from importlib.metadata import version; print(version('espnet'))"
    assert run_python(code, {}, cwd=tmp_path).strip() != version("espnet")


def test_listed(world):
    models = [model.id for model in HfApi().list_models(author="user")]
    names = [*ASR, "ssl", *(f"altered{number}" for number in range(len(ALTERED)))]
    assert models == sorted(f"user/{name}" for name in names)


@pytest.mark.parametrize("job", UPSTREAM_JOBS)
def test_an_upstream_gives_the_same_bits(world, pulled, job):
    assert pulled[job] == world.local[job.split("/")[1]]
    assert world.local["ssl"] != world.local["ssl@v1"]


@pytest.mark.parametrize("name", ASR)
@pytest.mark.parametrize("way", ["zoo", "zip", "ours", "ours-zip"])
def test_a_recogniser_gives_the_same_bits(world, pulled, name, way):
    archive = str(world.zips[name])
    job = {
        "zoo": f"zoo:user/{name}",
        "zip": f"zip:{archive}",
        "ours": f"ours:user/{name}",
        "ours-zip": f"ours:{archive}",
    }[way]
    found, expected = deepcopy(pulled[job]), deepcopy(world.local[name])
    if "ZOO_PYTHON" in os.environ:  # another ESPnet adds up scores in another order
        for lam in map(str, user.LAMS):
            a, b = (float.fromhex(r[lam].pop("score")) for r in (found, expected))
            assert a == pytest.approx(b, rel=1e-6)
    assert found == expected
    units = [pulled[job][str(lam)]["units"] for lam in (0.0, 0.6, 1.0)]
    assert units[0] > units[1] > units[2]  # lambda was set


@pytest.mark.parametrize("member", ALTERED)
def test_espnet_s_own_ways_refuse_what_was_altered(world, pulled, member):
    for job in (
        f"zoo:user/altered{ALTERED.index(member)}",
        f"zip:{world.zips[member]}",
    ):
        found = pulled[job]
        assert isinstance(found, str), f"{job} was loaded"
        assert found.startswith("refused: ") and f"published: {member}: " in found


def test_a_vocabulary_of_packed_names_stays(world, pulled):
    assert world.local["frontend"]["tokens"] == TOKENS
    for way in ("zoo:user/frontend", f"zip:{world.zips['frontend']}"):
        assert pulled[way]["tokens"] == TOKENS


def test_we_load_what_espnet_packs_without_its_flaw(world, tmp_path):
    """``espnet2.bin.pack`` gives a folder ``exp``, which is a token here as well."""
    shutil.unpack_archive(world.zips["frontend"], tmp_path)
    for name in ("checksums.json", "model.safetensors"):  # of ours
        (tmp_path / name).unlink()
    meta = yaml.safe_load((tmp_path / "meta.yaml").read_text())
    home = Path(meta["files"]["asr_model_file"]).parent
    (tmp_path / home).rename(tmp_path / "exp")
    text = (tmp_path / "meta.yaml").read_text().replace(f"{home}/", "exp/")
    (tmp_path / "meta.yaml").write_text(text)
    assert load_asr(tmp_path).asr_model.token_list == TOKENS


def test_a_checkpoint_with_other_keys_is_refused(world, tmp_path):
    """ESPnet itself loads what fits and leaves the rest as it was drawn."""
    shutil.unpack_archive(world.zips["preencoder"], tmp_path)
    for name in ("checksums.json", "model.safetensors"):
        (tmp_path / name).unlink()
    meta = yaml.safe_load((tmp_path / "meta.yaml").read_text())
    path = tmp_path / meta["files"]["asr_model_file"]
    state = torch.load(path, weights_only=True)
    state["surplus"] = state.pop("ctc.ctc_lo.bias")
    torch.save(state, path)
    message = r"valid.*missing: ctc\.ctc_lo\.bias; 1 unexpected: surplus"
    with pytest.raises(ValueError, match=message):
        load_asr(tmp_path)


def test_the_snippet_of_a_model_with_a_decoder(world, tmp_path, monkeypatch, capsys):
    """The search may want more tokens than there are units."""
    shutil.copy(world.wave, tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    init = functools.partialmethod(ModelDownloader.__init__, cachedir=tmp_path / "zoo")
    monkeypatch.setattr(ModelDownloader, "__init__", init)
    card = world.hub.files("user/frontend")["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code.replace("user/frontend", str(world.zips["frontend"])), {})
    assert capsys.readouterr().out.endswith("\n")


def test_a_published_upstream_can_be_fine_tuned(world):
    frontend = OFAFrontend("user/ssl", lam=0.6)
    published = espnet_ofa.OFAUpstream.from_pretrained("user/ssl").state_dict()
    for key, value in frontend.upstream.state_dict().items():
        assert key.startswith("policy.") or torch.equal(value, published[key])


def test_nothing_of_the_training_directory_is_published(world):
    for name in [*ASR, "ssl"]:
        for path, data in world.hub.files(f"user/{name}").items():
            assert str(world.training).encode() not in data, (name, path)


@pytest.mark.parametrize("form", ["hub id", "zip"])
def test_our_command_line_decodes_it(world, form, tmp_path):
    data = tmp_path / "test"
    data.mkdir()
    (data / "wav.scp").write_text(f"u {world.wave}\n")
    tag = "user/encoder" if form == "hub id" else str(world.zips["encoder"])
    search = [f"--{k}={v}" for k, v in user.SEARCH.items()]
    options = ["--model_tag", tag, "--output_dir", str(tmp_path / "out"), *search]
    options += ["--lam", "0", "0.6", "own", "--test_set", f"test:{data}"]
    asr_inference.main(options)
    for label, lam in (("0", "0.0"), ("0.6", "0.6"), ("own", "None")):
        folder = tmp_path / "out" / f"lam{label}" / "test"
        found = (folder / "token_int").read_text().split()[1:]
        assert found == [str(i) for i in world.local["encoder"][lam]["token_int"]]
    made = (folder / "text").stat().st_mtime_ns
    asr_inference.main(options)  # nothing to do again
    assert (folder / "text").stat().st_mtime_ns == made


def test_offline_after_once_online(world, pulled, run_python, elsewhere):
    jobs = [*UPSTREAM_JOBS, "ours:user/frontend", "zoo:user/frontend"]
    world.hub.requests.clear()
    again = run_user(world, run_python, elsewhere, jobs, HF_HUB_OFFLINE="1")
    assert again == {job: pulled[job] for job in jobs}
    assert not world.hub.requests
