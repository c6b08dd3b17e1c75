"""Other ESPnet tasks train with the names in the roles they have."""

from __future__ import annotations

import pytest
import torch
from espnet2.tasks.cls import CLSTask
from espnet2.tasks.s2t import S2TTask
from espnet2.tasks.slu import SLUTask
from espnet2.tasks.spk import SpeakerTask
from espnet2.tasks.st import STTask

from espnet_ofa.asr.adapter import Adapter

TOKENS = ["<blank>", "<unk>", "<notimestamps>", "<0.00>", "<30.00>", "a", "b", "<na>"]
TOKENS += ["<sop>", "<sos>", "<eos>", "<sos/eos>"]
DECODER = {
    "decoder": "transformer",
    "decoder_conf": {"num_blocks": 1, "linear_units": 16, "attention_heads": 2},
}


def _text(name):
    return {
        name: torch.tensor([[5, 6], [6, -1]]),
        f"{name}_lengths": torch.tensor([2, 1]),
    }


TASKS = {
    "slu": (SLUTask, {**DECODER}, _text("text")),
    "st": (
        STTask,
        {
            **DECODER,
            "model_conf": {"asr_weight": 0.0, "mt_weight": 0.0},
            "src_token_list": TOKENS,
        },
        _text("text"),
    ),
    "s2t": (
        S2TTask,
        {**DECODER},
        {**_text("text"), **_text("text_prev"), **_text("text_ctc")},
    ),
    "cls": (
        CLSTask,
        {"decoder": "linear"},
        {"label": torch.tensor([[3], [4]]), "label_lengths": torch.tensor([1, 1])},
    ),
}


def _build(task, conf):
    args = task.get_parser().parse_args(["--output_dir", "x"])
    args.token_list = list(TOKENS)
    for key, value in conf.items():
        assert hasattr(args, key), key
        setattr(args, key, value)
    return task.build_model(args)


def _train_once(model, batch):
    loss, _, _ = model.train()(**batch)
    loss.sum().backward()
    (adapter,) = [m for m in model.modules() if isinstance(m, Adapter)]
    grads = {n: p.grad for n, p in adapter.named_parameters()}
    (bias,) = [g for n, g in grads.items() if n.endswith("predictor.out.bias")]
    assert bias is not None and bias.abs() > 0
    return adapter


def _speech():
    return {
        "speech": torch.randn(2, 16000),
        "speech_lengths": torch.tensor([16000, 9000]),
    }


@pytest.mark.parametrize("role", ["frontend", "preencoder", "encoder"])
@pytest.mark.parametrize("name", sorted(TASKS))
def test_text_tasks(name, role, tiny, upstream_conf):
    if name == "cls":
        pytest.importorskip("torcheval", reason="ESPnet's cls model needs it")
    task, conf, text = TASKS[name]
    inner = {**tiny, "input_layer": "linear"}
    roles = {
        "frontend": {
            "frontend": "ofa",
            "frontend_conf": {"upstream": upstream_conf, "lam": 0.5},
        },
        "preencoder": {
            "preencoder": "ofa",
            "preencoder_conf": {"input_size": 80, "lam": 0.5},
        },
        "encoder": {
            "encoder": "ofa",
            "encoder_conf": {
                "encoder": "transformer",
                "encoder_conf": inner,
                "lam": 0.5,
            },
        },
    }
    base = {"encoder": "transformer", "encoder_conf": inner}
    model = _build(task, {**base, **conf, **roles[role]})
    adapter = _train_once(model, {**_speech(), **text})
    assert adapter.role == role


def test_speakers(upstream_conf):
    model = _build(
        SpeakerTask,
        {
            "frontend": "ofa",
            "frontend_conf": {"upstream": upstream_conf, "lam": 0.5},
            "encoder": "identity",
            "pooling": "mean",
            "projector": "rawnet3",
            "projector_conf": {"output_size": 8},
            "loss": "softmax",
            "spk_num": 2,
        },
    )
    batch = {**_speech(), "spk_labels": torch.tensor([[0], [1]])}
    assert _train_once(model, batch).role == "frontend"
    del batch["speech_lengths"]  # the speaker model makes its own then
    model(**batch)
