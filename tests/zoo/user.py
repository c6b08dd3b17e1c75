"""What a user does, in a process and with caches of its own: load, set lambda, decode.

    python user.py WAVE JOB...

JOB is zoo:TAG, zip:FILE, ours:NAME, up:NAME or auto:NAME. Prints JSON: for each job
and lambda what was recognised, to the bit, or why it was refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

LAMS = (None, 0.0, 0.6, 1.0)
# Of our optional dependencies, those that ESPnet does not depend on.
EXTRAS = (
    *("espeakng_loader", "jiwer", "matplotlib", "onnx", "onnxruntime", "onnxscript"),
    *("s3prl", "tensorboard", "torch_cif", "torcheval", "transformers", "triton"),
)
SEARCH: dict[str, Any] = {"beam_size": 3, "ctc_weight": 0.5, "maxlenratio": -6}


def bare_environment(jobs: list[str]) -> None:
    """Hide what ``pip install espnet espnet_ofa`` does not bring along."""
    for name in EXTRAS:
        if name != "transformers" or not any(job.startswith("auto:") for job in jobs):
            sys.modules[name] = None  # type: ignore[assignment]


def own_model_zoo() -> None:
    """Use a copy of espnet_model_zoo: 0.1.7 caches downloads inside the package."""
    spec = find_spec("espnet_model_zoo")
    assert spec is not None and spec.origin is not None
    copy = Path.home() / "lib" / "espnet_model_zoo"
    if not copy.exists():
        code = shutil.ignore_patterns("models--*", ".locks", "__pycache__")
        shutil.copytree(Path(spec.origin).parent, copy, ignore=code)
    sys.path.insert(0, str(copy.parent))


def bits(*tensors: Tensor) -> str:
    """Digest of the exact values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def recognise(speech2text: Any, wave: Tensor) -> dict[str, Any]:
    """Results and encoder outputs at several lambdas."""
    from espnet_ofa import set_lam

    model = speech2text.asr_model
    results: dict[str, Any] = {"tokens": list(model.token_list)}
    for lam in LAMS:
        if lam is not None:
            set_lam(model, lam)
        text, token, token_int, hyp = speech2text(wave.numpy())[0]
        encoded = model.encode(wave[None], torch.tensor([len(wave)]))[0]
        results[str(lam)] = {
            "text": text,
            "token": token,
            "token_int": token_int,
            "score": float(hyp.score).hex(),
            "units": encoded.shape[1],
            "encoded": bits(encoded),
        }
    return results


@torch.no_grad()
def extract(upstream: Any, wave: Tensor) -> dict[str, str]:
    """Hidden states at several lambdas."""
    given: dict[str, Any] = {"lengths": torch.tensor([len(wave)])}
    if type(upstream).__name__ == "OFAModel":
        mask = torch.ones(1, len(wave), dtype=torch.long)
        given = {"attention_mask": mask, "output_hidden_states": True}
    return {
        str(lam): bits(*upstream(wave[None], **given, lam=lam).hidden_states)
        for lam in LAMS[1:]
    }


def load(job: str) -> Any:
    """The model that a job names, by the way that it names."""
    kind, _, name = job.partition(":")
    if kind == "up":
        from espnet_ofa import OFAUpstream

        return OFAUpstream.from_pretrained(name)
    if kind == "auto":
        from transformers import AutoModel

        import espnet_ofa.interop.transformers  # noqa: F401

        hub_id, _, revision = name.partition("@")
        return AutoModel.from_pretrained(hub_id, revision=revision or None)
    if kind == "ours":
        from espnet_ofa.zoo.pull import load_asr

        return load_asr(name, **SEARCH)
    from espnet2.bin.asr_inference import Speech2Text

    if kind == "zoo":
        return Speech2Text.from_pretrained(name, **SEARCH)
    from espnet_model_zoo.downloader import ModelDownloader

    return Speech2Text(**ModelDownloader().download_and_unpack(name), **SEARCH)


def main() -> None:
    """Command line."""
    bare_environment(sys.argv[2:])
    own_model_zoo()
    wave = torch.from_numpy(soundfile.read(sys.argv[1], dtype="float32")[0])
    results = {}
    for job in sys.argv[2:]:
        use = extract if job.startswith(("up:", "auto:")) else recognise
        try:
            results[job] = use(load(job), wave)
        except ValueError as e:
            results[job] = f"refused: {e}"
    print("RESULT", json.dumps(results))


if __name__ == "__main__":
    main()
