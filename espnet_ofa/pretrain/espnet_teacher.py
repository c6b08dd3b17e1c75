"""Teachers that ESPnet's own code runs: what ``espnet2.tasks.ssl`` has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espnet_ofa.pretrain.teacher import Teacher
from espnet_ofa.subsampling.rate import FRAME_MS
from espnet_ofa.upstream.checkpoint import load_strictly
from espnet_ofa.upstream.extractor import (
    SAMPLE_RATE,
    WINDOW,
    frame_lengths,
    pad_to_whole_frames,
)
from espnet_ofa.upstream.importers.source import read_weights


class ESPnetTeacher(Teacher):
    """A frontend and an encoder of ESPnet's SSL task, of whatever kind they are.

    Utterances run one by one: its frontends take norms over the padding of a batch.

    Args:
        name: where it is from, for messages.
        checkpoint: e.g. ``exp/ssl/valid.loss.ave.pth``, beside its ``config.yaml``.

    Raises:
        ValueError: its frames are not those of 20 ms, or the weights do not fit the
            configuration.
    """

    def __init__(self, name: str, checkpoint: Path) -> None:
        from espnet2.tasks.ssl import SSLTask  # takes seconds to load

        config = checkpoint.with_name("config.yaml")
        built, args = SSLTask.build_model_from_file(str(config))
        model: Any = built.eval()
        load_strictly(model, read_weights(checkpoint), str(checkpoint))
        layers = model.encoder.encoders
        super().__init__(name, model.encoder.output_size(), len(layers))
        self.model = model
        self.args = args
        self._embedding: Tensor
        layers[0].register_forward_pre_hook(self._keep)
        self._check_frames()

    def to_precision(self, dtype: str) -> Teacher:
        """Only float32: its frontends take statistics of the waveform as it comes."""
        if dtype != "float32":
            raise ValueError(
                f"{self.name} runs in ESPnet's own code, whose frontends need float32: "
                f"expected dtype: float32, found {dtype}"
            )
        return self

    def settings(self) -> dict:
        """What the configuration says of frontend and encoder."""
        parts = "frontend", "preencoder", "encoder"
        known = vars(self.args)
        names = [name for part in parts for name in (part, f"{part}_conf")]
        return {name: known.get(name) for name in [*names, "normalize"]}

    def _keep(self, layer: nn.Module, args: tuple) -> None:
        x = args[0]  # with its positions, where those are relative
        self._embedding = x[0] if isinstance(x, tuple) else x

    @torch.no_grad()
    def _check_frames(self) -> None:
        for samples in (SAMPLE_RATE, SAMPLE_RATE + WINDOW):
            found = self._encode(torch.zeros(1, samples))[-1].shape[0]
            if found != frame_lengths(samples):
                raise ValueError(
                    f"{self.name}: expected a frame every {FRAME_MS:g} ms, "
                    f"{frame_lengths(samples)} of {samples} samples; found {found}. "
                    "Its frontend or the encoder's input_layer has another stride"
                )

    def _encode(self, wave: Tensor) -> list[Tensor]:
        """(1, L) -> ``depth + 1`` tensors (S, D)."""
        length = torch.tensor([wave.shape[1]], device=wave.device)
        top, states, _ = self.model.inference_encode(wave, length)
        return [x[0] for x in (self._embedding, *states[:-1], top)]

    def _states(self, wave, lengths, depth):
        n_frames = frame_lengths(lengths)
        wave = pad_to_whole_frames(wave, lengths)
        size = int(frame_lengths(wave.shape[1]))
        out = wave.new_zeros(depth + 1, len(wave), size, self.dim)
        for row, length in enumerate(lengths.clamp(min=WINDOW).tolist()):
            states = torch.stack(self._encode(wave[row : row + 1, :length]))
            out[:, row, : states.shape[1]] = states[: depth + 1]
        return list(out), n_frames
