"""A recogniser with CTC alone: the page's ways to load it, and weights of no use."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from espnet2.tasks.asr import ASRTask  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from test_docs import blocks  # noqa: E402
from tiny import UPSTREAM  # noqa: E402

from espnet_ofa.bin import asr_inference  # noqa: E402
from espnet_ofa.report.budget import model_checksum  # noqa: E402
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig  # noqa: E402
from espnet_ofa.zoo.pack import pack_asr  # noqa: E402
from espnet_ofa.zoo.publish import publish  # noqa: E402
from espnet_ofa.zoo.pull import load_asr  # noqa: E402
from espnet_ofa.zoo.results import own_rows  # noqa: E402

ENCODER = {
    "output_size": 8,
    "attention_heads": 2,
    "linear_units": 12,
    "num_blocks": 1,
    "input_layer": "linear",
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """Packed without training; six tokens, fewer than ESPnet's beam."""
    root = tmp_path_factory.mktemp("ctc")
    torch.manual_seed(0)
    upstream = OFAUpstream(UpstreamConfig.from_dict(UPSTREAM))
    upstream.save_pretrained(root / "upstream")
    config = {
        "frontend": "ofa",
        "frontend_conf": {"upstream": str(root / "upstream"), "lam": 0.4},
        "model": "ofa",
        "model_conf": {"ctc_weight": 1.0, "extract_feats_in_collect_stats": False},
        "encoder": "transformer",
        "encoder_conf": ENCODER,
        "normalize": None,
        "token_list": ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"],
        "token_type": "char",
    }
    exp = root / "asr_ctc"
    exp.mkdir()
    (root / "train.yaml").write_text(yaml.safe_dump(config))
    args = ASRTask.get_parser().parse_args(["--config", str(root / "train.yaml")])
    torch.save(ASRTask.build_model(args).state_dict(), exp / "valid.loss.ave.pth")
    options = {k: v for k, v in vars(args).items() if k != "use_adapter"}
    (exp / "config.yaml").write_text(yaml.safe_dump(options))  # as older ESPnet
    return pack_asr(exp, "valid.loss.ave.pth", root / "packed")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(16000)
    return (0.1 * noise).astype("float32")


def test_the_default_search_serves(packed, speech):
    speech2text = load_asr(packed)
    assert speech2text.asr_model.decoder is None
    assert set(speech2text.beam_search.scorers) == {"ctc"}
    assert speech2text.beam_search.beam_size == 6
    assert speech2text(speech)


def test_the_ways_of_the_page(packed, speech, hub, tmp_path, monkeypatch):
    publish(packed, "user/tiny")
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", speech, 16000, subtype="FLOAT")
    Path("data/test").mkdir(parents=True)
    Path("data/test/wav.scp").write_text(f"u {tmp_path}/speech.wav\n")
    found = [code for code in blocks("python") if "load_asr" in code]
    assert len(found) == 1
    names: dict = {"speech": speech}
    hub.requests.clear()
    exec(found[0], names)
    fetched = [path for method, path, *_ in hub.requests if method == "GET"]
    assert any("model.safetensors" in path for path in fetched)
    assert not any(".pth" in path for path in fetched)
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if "asr_inference" in line]
    asr_inference.main(shlex.split(line)[3:])
    for lam in ("0", "0.6"):
        text = Path("decoded", f"lam{lam}", "test", "text").read_text()
        assert text.startswith("u")
    assert isinstance(names["text"], str)


def test_the_command_of_the_card(packed, speech, hub, tmp_path, monkeypatch):
    """From the published card, as shown."""
    publish(packed, "user/tiny")
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", speech, 16000, subtype="FLOAT")
    Path("data/test").mkdir(parents=True)
    Path("data/test/wav.scp").write_text("u speech.wav\n")
    Path("data/test/text").write_text("u ab\n")
    card = hub.files("user/tiny")["README.md"].decode()
    install, command = re.findall(r"```sh\n(.*?)```", card, re.DOTALL)[:2]
    assert install.startswith("pip install")
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "espnet_ofa.bin.asr_inference"]
    assert "greedy" in words and "--lam" in words
    asr_inference.main(words[3:])
    (text,) = Path("decoded").glob("lam*/test/text")
    assert text.read_text().startswith("u")
    # Results of the published weights are those of the checkpoint that was packed.
    trained = packed.parent / "asr_ctc/valid.loss.ave.pth"
    checksum = model_checksum(torch.load(trained, weights_only=True))
    (row,) = own_rows(trained.parent, trained, checksum, ["decoded"])
    assert "bpemodel" not in row.stats.setup


def test_the_checkpoint_of_espnet_is_not_touched(packed, speech, tmp_path):
    folder = tmp_path / "asr"
    shutil.copytree(packed, folder)
    (path,) = folder.rglob("*.pth")
    path.write_bytes(b"who knows what")
    ours = load_asr(folder, lam=0.6, ctc_weight=1.0, beam_size=2)
    path.unlink()
    again = load_asr(folder, lam=0.6, ctc_weight=1.0, beam_size=2)
    assert ours(speech)[0][:3] == again(speech)[0][:3]
    wanted = load_file(folder / "model.safetensors")
    for key, value in ours.asr_model.state_dict().items():
        assert torch.equal(value, wanted[key])
    options = {"ctc_weight": 1.0, "beam_size": 2, "quantize_asr_model": True}
    small = load_asr(folder, lam=0.6, **options)  # needs weights while it is built
    assert isinstance(small(speech)[0][0], str)
    found = small.asr_model.ctc.ctc_lo.weight().dequantize()
    torch.testing.assert_close(found, wanted["ctc.ctc_lo.weight"], atol=0.01, rtol=0)


def test_weights_of_another_shape(packed, tmp_path):
    folder = tmp_path / "asr"
    shutil.copytree(packed, folder)
    (folder / "checksums.json").unlink()
    state = load_file(folder / "model.safetensors")
    save_file({**state, "more": torch.zeros(9)}, folder / "model.safetensors")
    message = rf"^{folder}/model\.safetensors does not fit this .*: more\. Use the"
    with pytest.raises(ValueError, match=message):
        load_asr(folder)
    state["ctc.ctc_lo.bias"] = torch.zeros(9)
    save_file(state, folder / "model.safetensors")
    message = r"model\.safetensors does not fit.*ctc\.ctc_lo\.bias"
    with pytest.raises(ValueError, match=message):
        load_asr(folder)


def test_the_command_line_says_what_it_was_given(tmp_path):
    options = ["--output_dir", str(tmp_path / "out"), "--search", "greedy"]
    with pytest.raises(FileNotFoundError, match="nobody: expected"):
        asr_inference.main(["--model_tag", str(tmp_path / "nobody"), *options])
