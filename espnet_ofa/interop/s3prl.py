"""An s3prl upstream: hidden states at 20 ms, whatever frame period they were made at.

s3prl computes every length from the waveform and knows one constant rate an upstream
(``s3prl.nn.S3PRLUpstream`` cuts or pads to ``ceil(samples / rate)``, the older
``Featurizer`` to ``round(samples / rate)``). So units are expanded to frames again:
right everywhere, and slower downstream than units would be. ESPnet's ``frontend: ofa``
hands on the units themselves.

    S3PRLUpstream("ofa_local", path_or_url="user/model", extra_conf={"lam": 0.6})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from espnet_ofa.cif import expand
from espnet_ofa.subsampling.lengths import subsampled_lengths, zero_padding
from espnet_ofa.subsampling.policy import LamPolicy
from espnet_ofa.upstream.checkpoint import from_pretrained
from espnet_ofa.upstream.extractor import HOP


class UpstreamExpert(nn.Module):
    """What s3prl calls an expert.

    Args:
        ckpt: directory, zip or hub id of an upstream.
        model_config: YAML file, or a mapping, that gives ``lam`` or ``squeeze``; for a
            command line (``run_downstream.py -g``) that hands on nothing else.
        lam: lambda in [0, 2], in training too.
        squeeze: (S, q, k) of a stochastic upstream, in training too.
        **kwargs: other options that s3prl hands to every upstream; not used.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, OSError, ValueError: see
            :func:`espnet_ofa.hub.pull`.
        ValueError: no upstream, or no lambda for one that compresses by it.
    """

    def __init__(
        self,
        ckpt: str | Path | None = None,
        model_config: str | Path | Mapping[str, object] | None = None,
        lam: float | None = None,
        squeeze: Sequence[int] | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__()
        if ckpt is None:
            raise ValueError(
                "ofa_local: expected an upstream, found none; give its directory, zip "
                "or hub id as path_or_url (S3PRLUpstream), -k (run_downstream.py) or "
                "ckpt"
            )
        options = _read_options(model_config)
        lam = options.get("lam") if lam is None else lam
        squeeze = options.get("squeeze") if squeeze is None else squeeze
        self.upstream = from_pretrained(ckpt, LamPolicy(lam))
        if self.upstream.squeeze_policy is not None:
            self.upstream.squeeze_policy.choose(squeeze, None)
        if lam is None and self.upstream.policy.used:
            # s3prl evaluates an upstream to learn its width: say here how to set it.
            raise ValueError(
                f"{ckpt}: lambda is not set; give extra_conf={{'lam': 0.6}} "
                "(S3PRLUpstream), extra_conf: {lam: 0.6} (ESPnet's frontend_conf) or "
                "a file with `lam: 0.6` as -g (run_downstream.py)"
            )

    def get_downsample_rates(self, key: str) -> int:
        """Samples a frame of any of the returned states covers: 320, 20 ms."""
        return HOP

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, object]:
        """Encode at lambda and expand to 20 ms.

        Args:
            wavs: 1-D tensors of samples at 16 kHz.

        Returns:
            ``hidden_states``: (B, T, D) of every layer, from the embedding upwards, T
            being ``ceil(samples / 320)`` of the longest; ``last_hidden_state``;
            ``lengths``: (B,) frames that are not padding, ``ceil(samples / 320)``;
            ``period_ms``: (B,) measured frame period of the units.

            The extractor sees 25 ms at a time, and so makes up to two frames less:
            like in s3prl itself, an utterance's last frame is repeated. Padding is 0.

        Raises:
            ValueError: no waveform, an empty one, or one that is not 1-D.
        """
        for i, wav in enumerate(wavs):
            if wav.dim() != 1 or not len(wav):
                raise ValueError(
                    f"waveform {i}: expected (samples,), at least one of them; found "
                    f"shape {tuple(wav.shape)}"
                )
        if not wavs:
            raise ValueError("expected a list of waveforms; found an empty one")
        wave = pad_sequence(list(wavs), batch_first=True)
        samples = torch.tensor([len(wav) for wav in wavs], device=wave.device)
        out = self.upstream(wave, samples)
        lengths = subsampled_lengths(samples, HOP)
        size = -(-wave.shape[1] // HOP)
        # All layers at once: units are mixed the same way in each.
        states = expand(torch.cat(out.hidden_states, -1), out.durations, size)
        last = (out.frame_lengths - 1)[:, None]
        index = torch.arange(size, device=wave.device).minimum(last)
        states = states.take_along_dim(index[..., None], 1)
        states = zero_padding(states, lengths)
        hidden = list(states.split(self.upstream.output_size(), -1))
        return {
            "hidden_states": hidden,
            "last_hidden_state": hidden[-1],
            "lengths": lengths,
            "period_ms": out.period_ms,
        }


def _read_options(source: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """``lam`` and ``squeeze`` of a file or a mapping."""
    if source is None:
        return {}
    found: Any = source
    if not isinstance(source, Mapping):
        found = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    if not isinstance(found, Mapping) or not set(found) <= {"lam", "squeeze"}:
        raise ValueError(
            f"model_config: expected lam or squeeze, found {str(found)[:200]} in "
            f"{str(source)[:200]}. The shape of the model is beside its weights"
        )
    return found


ofa = ofa_local = UpstreamExpert  # entries, as a hubconf.py names them
