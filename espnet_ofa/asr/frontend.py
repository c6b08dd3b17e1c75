"""``frontend: ofa``: a pre-trained upstream that hands units to ESPnet."""

from __future__ import annotations

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from torch import Tensor, nn

from espnet_ofa.asr.adapter import Adapter
from espnet_ofa.asr.building import (
    building_args,
    check_neighbours,
    find_seed,
    initialising,
    loading_checkpoint,
)
from espnet_ofa.asr.pretrained import find_upstream, is_bare
from espnet_ofa.asr.time_mask import TimeMask
from espnet_ofa.cif import expand
from espnet_ofa.subsampling import LamPolicy
from espnet_ofa.subsampling.lengths import valid_mask
from espnet_ofa.subsampling.rate import LamTrain
from espnet_ofa.subsampling.training import in_training_step
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.upstream.checkpoint import from_pretrained
from espnet_ofa.upstream.extractor import SAMPLE_RATE, parse_rate


class OFAFrontend(Adapter, AbsFrontend):
    """Runs an :class:`OFAUpstream` and returns units and their true lengths.

    Goes with ``normalize: utterance_mvn`` or none, and with an encoder whose
    ``input_layer`` does not subsample.

    Args:
        upstream: directory or hub id (config and weights); or only the config, as a
            mapping or a ``.yaml`` file, for random weights.
        lam: lambda at evaluation, in [0, 2]; or ``adaptive`` for a learned one.
        lam_train: lambda in training: ``uniform | ends | log_period |
            uniform_period | ends_period | extended``, a number, ``[low, high]``; by
            default the same as ``lam``.
        lam_conf: for ``adaptive``: ``{init, low, high, speed, window, alone}``.
        squeeze: (S, q, k) at evaluation, ``[2, 1, 2]`` or ``"2,1,2"``, for a stochastic
            upstream; see :class:`~espnet_ofa.subsampling.SqueezePolicy`.
        squeeze_train: ``uniform`` draws a setting at each training step; by default the
            upstream is fine-tuned to ``squeeze``.
        merge: ``{layers: [...], ratio: ...}``, or ``threshold``: layers of the upstream
            that merge adjacent units, in place of what its config says.
        condition: ``[durations]``, ``[lam]`` or both: what the Transformer is told of
            the rate, in place of what the upstream's config says. A new one starts
            without an effect.
        seed: seed of the draws; by default that of the training.
        layer: hidden state to return (0: embedding, -1: last layer), or ``weighted``
            for a learned average of all of them.
        upsample: return frames of 20 ms again, by the upstream's up-sampler where it
            has one (SEW and stochastic wav2vec 2.0 do), else by duration; only the
            upstream then runs on units.
        freeze: weights keep their values and stay in eval mode; lambda stays live.
        freeze_updates: the upstream learns nothing from the task in the first so many
            steps, while what is new on top of it finds its feet (HuBERT, section IV.C;
            several GPUs then need ``unused_parameters: true``).
        time_mask: ``{num, max_ms}``: in training, blank this many spans of up to that
            many ms in each utterance, before compression.
        fs: sampling rate of the corpus, as ESPnet's recipes append it; must be 16 kHz.
        lam_price: with ``model: ofa`` and ``lam: adaptive``: weight of the expected
            share of frames kept.
        guidance: with ``model: ofa``: weight of the cardinality loss on raw alpha.
        ctc_guard: with ``model: ofa``: lower lambda in training for utterances that
            would have too few units for their labels.
        sandwich: with ``model: ofa`` of ASR and ``lam_train``: train at lambda 0, at 1
            and at the drawn one in each step, the latter two pulled to the first with
            this weight; see :func:`espnet_ofa.asr.sandwich.sandwich`.
        upstream_config: written by ourselves into the ``config.yaml`` of a trained
            model, so that it can be rebuilt without ``upstream``.
    """

    role = "frontend"
    frame_ms = OFAUpstream.frame_ms
    # (B,) units of the last forward where it returned frames of 20 ms again.
    unit_lengths: Tensor | None = None

    def __init__(
        self,
        upstream: str | dict,
        lam: float | str | None = None,
        lam_train: LamTrain = None,
        lam_conf: dict | None = None,
        squeeze: str | int | list[int] | None = None,
        squeeze_train: str | None = None,
        merge: dict | None = None,
        condition: list[str] | None = None,
        seed: int | None = None,
        layer: int | str = -1,
        upsample: bool = False,
        freeze: bool = False,
        freeze_updates: int = 0,
        time_mask: dict | None = None,
        fs: int | str = SAMPLE_RATE,
        lam_price: float = 0.0,
        guidance: float = 0.0,
        ctc_guard: bool = False,
        sandwich: float = 0.0,
        upstream_config: dict | None = None,
    ) -> None:
        super().__init__()
        if parse_rate(fs) != SAMPLE_RATE:
            raise ValueError(
                f"frontend: ofa needs {SAMPLE_RATE} Hz audio; got fs={fs}. Resample "
                "the corpus (--fs 16k)"
            )
        if freeze and guidance:
            raise ValueError("guidance trains alpha, which freeze: true forbids")
        check_neighbours(self.role, lam)
        seed = find_seed(seed)
        config, weights = find_upstream(upstream, upstream_config)
        policy = LamPolicy(
            lam, lam_train, lam_conf, seed, mean_alpha=config.target_rate
        )
        if weights is None:
            self.upstream = OFAUpstream(config, policy)
        else:
            self.upstream = from_pretrained(weights, policy)
        # A rebuilt model gets its weights from a checkpoint; training on without one
        # would silently start from noise. A bare config asked for just that.
        self._awaiting_weights = (
            weights is None and upstream_config is not None and not is_bare(upstream)
        )
        self._upstream_name = upstream
        self._choose_squeeze(squeeze, squeeze_train, seed)
        if merge is not None:
            self.upstream.set_merge(merge)
        if condition is not None:
            self.upstream.set_condition(condition)
        self._choose_layer(layer)
        self.upsample = upsample
        if self.upstream.upsampler is not None:
            self.upstream.upsampler.requires_grad_(upsample)
        self.time_mask = TimeMask.parse(time_mask)
        self.freeze = freeze
        self.freeze_updates = freeze_updates
        self.register_buffer("updates", torch.zeros(1))  # a float: see LamPolicy
        self._updates = 0
        self._frames: tuple[Tensor, Tensor] | None = None  # of a sandwich's batch
        self._spread: Tensor | None = None
        if freeze:
            self.upstream.requires_grad_(False)
            self.policy.requires_grad_(True)
        self.sandwich = sandwich
        self._setup(
            self.upstream.compressor, lam_price, guidance, ctc_guard, keep=[self]
        )
        self.train(self.training)

    @property
    def policy(self) -> LamPolicy:  # type: ignore[override]
        """The upstream's: there is one lambda, not two."""
        return self.upstream.policy

    def _choose_squeeze(
        self,
        squeeze: str | int | list[int] | None,
        squeeze_train: str | None,
        seed: int,
    ) -> None:
        policy = self.upstream.squeeze_policy
        if policy is not None:
            if squeeze is None and building_args() and not loading_checkpoint():
                raise ValueError(
                    "frontend_conf: set squeeze: [S, q, k], the setting at evaluation. "
                    "Without it, training would stop at the first validation"
                )
            if squeeze_train is not None and self.policy.learnable is not None:
                raise ValueError(
                    "frontend_conf: lam: adaptive compares two lambdas in each step, "
                    "which needs one squeeze: remove squeeze_train"
                )
            policy.choose(squeeze, squeeze_train, seed)
        elif squeeze is not None or squeeze_train is not None:
            raise ValueError(
                "frontend: ofa: squeeze needs a stochastic upstream (several values of "
                "its squeeze factor, query_pool or key_pool); this one has one setting"
            )

    def guard_ctc(self) -> None:
        """See :class:`Adapter`.

        Raises:
            ValueError: a guard that would not count what CTC gets.
        """
        if self.upsample:
            if self.ctc_guard:
                raise ValueError(
                    "frontend_conf: ctc_guard: true counts units, and with upsample: "
                    "true CTC gets frames of 20 ms: remove ctc_guard"
                )
            return
        super().guard_ctc()
        if self.ctc_guard and self.upstream.config.merge:
            raise ValueError(
                "frontend_conf: ctc_guard: true (and lam: adaptive with CTC, which "
                "needs it) does not go with layers that merge, which leave fewer units "
                "than it counts: set merge: {}, or do without"
            )

    def _choose_layer(self, layer: int | str) -> None:
        layers = self.upstream.config.layers
        self.layer_weights: nn.Parameter | None = None
        self.layer: int | None = None
        if layer == "weighted":
            self.layer_weights = nn.Parameter(torch.zeros(layers + 1))
            return
        if isinstance(layer, str) or not -layers - 1 <= layer <= layers:
            raise ValueError(
                f"layer must be `weighted` or an int in [-{layers + 1}, {layers}] for "
                f"an upstream of {layers} layers; got {layer!r}"
            )
        self.layer = layer % (layers + 1)
        # What lies above does not run; saying so keeps data-parallel training from
        # waiting for its gradient.
        transformer = self.upstream.transformer
        transformer.layers[self.layer :].requires_grad_(False)
        if transformer.norm_first and self.layer < layers:
            transformer.norm.requires_grad_(False)

    def output_size(self) -> int:
        """Width of the units."""
        return self.upstream.output_size()

    def train(self, mode: bool = True) -> OFAFrontend:
        """As usual, but a frozen upstream stays in eval mode, its lambda live."""
        super().train(mode)
        if self.freeze:
            self.upstream.eval()
            self.policy.train(mode)
        return self

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            input: (B, L) samples at 16 kHz.
            input_lengths: (B,) samples.

        Returns:
            (B, U, D) units and their (B,) true lengths.
        """
        if self._awaiting_weights:
            raise RuntimeError(
                f"frontend: ofa: the weights of upstream {self._upstream_name!r} were "
                "not found and no checkpoint was loaded. Give a directory that "
                "exists, or start from a checkpoint"
            )
        frames, n_frames = self._extract(input, input_lengths)
        out = self._compress(self.upstream.compressor, frames, n_frames, n_frames)
        out = self.upstream.in_chunks(out, n_frames)
        encoded = self.upstream.encode_units(out, self.layer)
        if encoded.merges:  # fewer units than the compressor made
            self._durations = encoded.durations
            self._stats["period_ms"] = self._period(n_frames, encoded.lengths)
        states = (
            encoded.states[-1:] if self.layer_weights is None else encoded.aligned()
        )
        learning = in_training_step(self)
        waiting = learning and self._updates <= self.freeze_updates
        if waiting:
            states = [state.detach() for state in states]
        if self.layer_weights is None:
            units = states[-1]
        else:
            shares = self.layer_weights.softmax(0)
            units = torch.einsum("n,nbud->bud", shares, torch.stack(states))
        size = frames.shape[1]
        if self.sandwich and learning:
            self._spread = expand(units, encoded.durations, size)
        if not self.upsample:
            return units, encoded.lengths
        self._durations = valid_mask(n_frames, size).float()
        self.unit_lengths = encoded.lengths
        up = self.upstream.to_frames(units, encoded.durations, size, waits=waiting)
        return up, n_frames

    def _extract(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames, masked in training; of a batch once, however often it is encoded."""
        if self._frames is not None:
            return self._frames
        frames, n_frames = self.upstream.extract(wave, lengths)
        if self.in_training and self.time_mask is not None and not self.alone:
            frames = self.time_mask(frames, n_frames)
        if in_training_step(self):
            self._updates += 1
            self.updates.fill_(self._updates)  # type: ignore[operator]
            if self.sandwich and self._claimed:
                self._frames = frames, n_frames
        return frames, n_frames

    def begin(self, needed: Tensor) -> None:
        """Start a batch; see :class:`Adapter`."""
        super().begin(needed)
        self._frames = self._spread = None

    def end(self) -> None:
        """End of a batch: let go of the graph."""
        super().end()
        self._frames = self._spread = None

    def spread_frames(self) -> tuple[Tensor, Tensor]:
        """What the last forward of a sandwich returned, spread over frames of 20 ms.

        (B, S, D), and (B,) frames.
        """
        assert self._frames is not None and self._spread is not None
        return self._spread, self._frames[1]

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if initialising():  # the count is of this training's steps, not of another's
            self.updates.zero_()  # type: ignore[operator]
        self._updates = int(self.updates.item())  # type: ignore[operator]
        self._awaiting_weights = False
