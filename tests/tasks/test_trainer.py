"""A loss that is not finite stops training, names its batch and spares checkpoints."""

import argparse
import importlib
import math
import re

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_ofa.pretrain.model import MaskedPredictionModel
from espnet_ofa.tasks.ssl import OFASSLTask
from espnet_ofa.tasks.trainer import FiniteTrainer, NonFiniteLossError

UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 8, "mels": 20},
    "dim": 8,
    "layers": 1,
    "heads": 2,
    "ff_dim": 8,
    "pos_kernel": 3,
    "pos_groups": 1,
}
CONFIG = {
    "upstream_conf": UPSTREAM,
    "num_codes": 8,
    "lam": 0.5,
    "best_model_criterion": [["valid", "loss", "min"]],
    "optim": "adam",
    "optim_conf": {"lr": 0.003},
    "batch_type": "unsorted",
    "batch_size": 2,
    "num_workers": 0,
    "keep_nbest_models": 1,
    "use_matplotlib": False,
    "use_tensorboard": False,
}
FORWARD = MaskedPredictionModel.forward


@pytest.fixture
def corpus(tmp_path):
    """Six utterances as files of floats, which can hold NaN; a way to spoil one."""
    rng = np.random.default_rng(0)
    wav, targets = "", ""
    for i in range(6):
        path = tmp_path / f"u{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(9600), 16000, "FLOAT")
        wav += f"u{i} {path}\n"
        targets += f"u{i} {' '.join(map(str, rng.integers(0, 8, 29)))}\n"
    (tmp_path / "train.scp").write_text(wav)
    (tmp_path / "valid.scp").write_text("\n".join(wav.splitlines()[:3]) + "\n")
    (tmp_path / "targets").write_text(targets)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def spoil(corpus, utterance, value=np.nan):
    path = corpus / f"{utterance}.wav"
    wave, rate = soundfile.read(path)
    wave[4000] = value
    soundfile.write(path, wave, rate, "FLOAT")


def train(corpus, epochs=1):
    options = ["--config", str(corpus / "config.yaml"), "--ngpu", "0"]
    options += ["--output_dir", str(corpus / "exp"), "--max_epoch", str(epochs)]
    options += ["--resume", "true"]
    for which in ("train", "valid"):
        scp = corpus / f"{which}.scp"
        option = f"--{which}_data_path_and_name_and_type"
        options += [option, f"{scp},speech,sound"]
        options += [option, f"{corpus / 'targets'},targets,text_int"]
        options += [f"--{which}_shape_file", str(scp)]
    OFASSLTask.main(cmd=options)


def epochs(corpus):
    return sorted(p.name for p in (corpus / "exp").glob("*epoch.pth"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_spoiled_utterance_is_named(corpus, value):
    spoil(corpus, "u3", value)
    with pytest.raises(NonFiniteLossError) as error:
        train(corpus)
    text = str(error.value)
    step = re.match(r"step (\d) of training in epoch 1: the loss is not", text)
    assert step and 1 <= int(step[1]) <= 3
    batch = re.search(r"Utterances of the batch: (u\d, u\d)\. ", text)
    assert batch and "u3" in batch[1]
    assert "not even computed (row " in text  # units of NaN cannot be counted
    assert "Samples that are not finite: u3. Repair or remove" in text
    assert "No epoch was finished" in text and epochs(corpus) == []


def test_validation_counts_too(corpus):
    scp = (corpus / "train.scp").read_text().splitlines()
    (corpus / "train.scp").write_text("\n".join(scp[2:]) + "\n")
    spoil(corpus, "u1")
    with pytest.raises(
        NonFiniteLossError, match=r"of validation in epoch 1.*finite: u1\. "
    ):
        train(corpus)
    assert epochs(corpus) == []


def test_spoiled_weights_end_in_the_last_good_checkpoint(corpus, monkeypatch):
    steps = 0

    def breaks_in_the_second_epoch(self, **batch):
        nonlocal steps
        steps += self.training
        if steps == 5:
            self.head.weight.data[0, 0] = math.nan
        return FORWARD(self, **batch)

    monkeypatch.setattr(MaskedPredictionModel, "forward", breaks_in_the_second_epoch)
    with pytest.raises(NonFiniteLossError) as error:
        train(corpus, 3)
    text = str(error.value)
    assert "step 2 of training in epoch 2: the loss is not finite (loss nan, " in text
    assert re.search(r"loss_masked nan, .*loss_cardinality \d", text)
    assert "Weights that are not finite: head.weight. So" in text
    assert f"Kept: {corpus / 'exp/latest.pth'}, of epoch 1" in text
    assert epochs(corpus) == ["1epoch.pth"]
    kept = torch.load(corpus / "exp/latest.pth", weights_only=True)
    assert all(x.isfinite().all() for x in kept.values())

    monkeypatch.setattr(MaskedPredictionModel, "forward", FORWARD)
    train(corpus, 3)  # goes on from there
    assert "3epoch.pth" in epochs(corpus)
    final = torch.load(corpus / "exp/valid.loss.ave.pth", weights_only=True)
    assert all(x.isfinite().all() for x in final.values())


def test_a_gradient_that_overflows_once_stops_nothing(corpus, monkeypatch):
    steps, updates, update = 0, [], torch.optim.Adam.step

    def overflow(grad):
        return grad * math.inf if steps == 2 else grad

    def overflows_once(self, **batch):
        nonlocal steps
        steps += self.training
        if steps == 1:
            self.head.weight.register_hook(overflow)
        return FORWARD(self, **batch)

    monkeypatch.setattr(MaskedPredictionModel, "forward", overflows_once)
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self: updates.append(steps) or update(self)
    )
    train(corpus)
    assert steps == 3 and updates == [1, 3]  # ESPnet leaves that one out
    assert epochs(corpus) == ["1epoch.pth"]


def test_an_overflow_of_the_model_itself_is_told_apart(corpus, monkeypatch):
    def overflows(self, **batch):
        loss, stats, weight = FORWARD(self, **batch)
        return loss * math.inf, {**stats, "loss_masked": loss.detach()}, weight

    monkeypatch.setattr(MaskedPredictionModel, "forward", overflows)
    with pytest.raises(NonFiniteLossError, match="Samples and weights are finite, so"):
        train(corpus)


def test_other_errors_are_left_alone(corpus, monkeypatch):
    def fails(self, **batch):
        raise ValueError("too short")

    monkeypatch.setattr(MaskedPredictionModel, "forward", fails)
    with pytest.raises(ValueError, match="^too short$"):
        train(corpus)


def test_all_our_tasks_have_it():
    from espnet_ofa.tasks.asr import OFAASRTask
    from espnet_ofa.tasks.cls import OFACLSTask

    assert {OFASSLTask.trainer, OFAASRTask.trainer, OFACLSTask.trainer} == {
        FiniteTrainer
    }


@pytest.mark.parametrize("task", ["asr", "cls", "ssl"])
@pytest.mark.parametrize("which", ["train", "valid"])
def test_audio_at_another_rate_stops_before_training(corpus, task, which):
    tasks = {"asr": "OFAASRTask", "cls": "OFACLSTask", "ssl": "OFASSLTask"}
    module = importlib.import_module(f"espnet_ofa.tasks.{task}")
    slow = corpus / "slow.wav"
    soundfile.write(slow, np.zeros(8000), 8000)
    (corpus / f"{which}.scp").write_text(f"u0 {slow}\n")
    data = {
        f"{x}_data_path_and_name_and_type": [
            (str(corpus / "targets"), "targets", "text_int"),
            (str(corpus / f"{x}.scp"), "speech", "sound"),
        ]
        for x in ("train", "valid")
    }
    args = argparse.Namespace(frontend_conf={"fs": "16k"}, **data)
    with pytest.raises(ValueError, match=r"slow\.wav: expected 16 kHz, found 8000"):
        getattr(module, tasks[task]).main_worker(args)
