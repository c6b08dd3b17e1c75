"""The loss of a CTC model over lambda, its slope, and what the derivative makes of it.

    python3 local/lam_loss.py exp/asr_train_asr_ctc_raw_en_bpe200 dump/raw/valid

A table: at each lambda the measured frame period and the loss per utterance; the slope
of the line that fits the loss best within 0.1 of lambda; the derivative with respect to
lambda, averaged over the same window; and how far either scatters where it is
estimated from a batch of 10 utterances at one draw, as in training.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_ofa import set_lam
from espnet_ofa.plugin import register
from espnet_ofa.report.tables import markdown_table
from espnet_ofa.report.tradeoff import read_text

STEP, WINDOW, BATCH = 0.02, 5, 10
SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def measure(model, batch, lam):
    """Loss, derivative and units of each utterance, (3, B)."""
    speech, text = (
        [torch.as_tensor(x[key]) for x in batch] for key in ("speech", "text")
    )
    lengths = torch.tensor([len(x) for x in speech])
    labels = torch.tensor([len(x) for x in text])
    knob = torch.full((len(batch),), lam, requires_grad=True)
    set_lam(model, knob)
    units, n_units = model.encode(pad_sequence(speech, True), lengths)
    scores = model.ctc.ctc_lo(units).log_softmax(-1).transpose(0, 1)
    losses = torch.nn.functional.ctc_loss(
        scores, pad_sequence(text, True), n_units, labels, reduction="none"
    )
    (slopes,) = torch.autograd.grad(losses.sum(), knob)
    return torch.stack([losses.detach(), slopes, n_units.float()]).numpy()


def table(lams, loss, derivative, units, frames) -> str:
    """Lambdas (K,), the next three (K, N) of utterances, frames in all."""
    offsets = np.arange(1, WINDOW + 1)
    body = []
    for lam in SHOWN:
        k = round(lam / STEP)
        rises = loss[k + offsets] - loss[k - offsets]  # (WINDOW, N)
        slopes = offsets[:, None] * STEP * rises / 2 / (offsets**2).mean() / STEP**2
        around = derivative[k - WINDOW : k + WINDOW + 1]
        cells = [f"{lams[k]:.1f}", f"{20 * frames / units[k].sum():.1f}"]
        cells.append(f"{loss[k].mean():.2f}")
        for found in (slopes, around):
            error = found.mean(0).std() / found.shape[1] ** 0.5
            cells.append(f"{found.mean():+.1f} ± {error:.1f}")
        cells += [f"{x.std() / BATCH**0.5:.1f}" for x in (slopes, around)]
        body.append(cells)
    header = ["lambda", "frame period (ms)", "loss", "slope", "derivative"]
    return markdown_table([*header, "slope, a batch", "derivative, a batch"], body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exp", type=Path)
    parser.add_argument("data", type=Path, help="with wav.scp (audio files) and text")
    parser.add_argument("--checkpoint", default="valid.cer_ctc.ave.pth")
    parser.add_argument("--utterances", type=int, help="evenly spread; default: all")
    args = parser.parse_args()
    register()
    from espnet2.tasks.asr import ASRTask

    model, conf = ASRTask.build_model_from_file(
        args.exp / "config.yaml", args.exp / args.checkpoint
    )
    model.eval()
    prepare: Any = ASRTask.build_preprocess_fn(conf, False)
    wavs, texts = read_text(args.data / "wav.scp"), read_text(args.data / "text")
    keys = sorted(wavs)
    count = min(args.utterances or len(keys), len(keys))
    data = []
    for key in (keys[i * len(keys) // count] for i in range(count)):
        speech = soundfile.read(wavs[key], dtype="float32")[0]
        data.append(prepare(key, {"speech": speech, "text": texts[key]}))
    data.sort(key=lambda x: len(x["speech"]))
    batches = [data[i : i + BATCH] for i in range(0, len(data), BATCH)]
    lams = np.arange(0.0, 1.0 + STEP / 2, STEP)
    loss, derivative, units = (
        np.stack(rows)  # (K, N)
        for rows in zip(
            *(
                np.concatenate([measure(model, b, float(lam)) for b in batches], axis=1)
                for lam in lams
            ),
            strict=True,
        )
    )
    frames = units[0].sum()  # at lambda 0 a unit is a frame
    print(table(lams, loss, derivative, units, frames))


if __name__ == "__main__":
    main()
