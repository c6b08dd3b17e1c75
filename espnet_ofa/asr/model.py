"""``model: ofa``: ESPnet's ASR model, with the losses and counts of its adapter."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from espnet2.asr.espnet_model import ESPnetASRModel
from torch import Tensor

from espnet_ofa.asr.adapter import Adapter, listen, only_adapter
from espnet_ofa.asr.building import building_args, refuse_checkpoint
from espnet_ofa.asr.guard import needed_units
from espnet_ofa.asr.sandwich import sandwich
from espnet_ofa.asr.slope import evaluate_others, freeze_others, learn_lam
from espnet_ofa.subsampling.lengths import valid_mask


class OFAASRModel(ESPnetASRModel):
    """ESPnet's hybrid CTC/attention model that listens to its ofa adapter.

    Needed only for a learned lambda, which follows the slope of the loss (see
    :func:`~espnet_ofa.asr.slope.learn_lam`), and for a price on units (``lam_price``),
    ``guidance``, ``ctc_guard`` or ``sandwich``, which are set on the adapter; also
    reports, for train and valid, the measured ``period_ms``, ``lam``, and
    ``infeasible``: the share of utterances that have fewer units than CTC needs for
    their labels. ESPnet's CTC gives those zero loss (``zero_infinity``), so nobody else
    would notice, and ``valid.loss`` is no measure to choose checkpoints by.

    Takes the arguments of :class:`ESPnetASRModel`.

    Raises:
        ValueError: not one adapter to listen to, a guard without CTC, or (when loading)
            a checkpoint that lacks or adds a key anywhere in the model.
    """

    # With the arguments of the class below, which --print_config lists.
    @functools.wraps(ESPnetASRModel.__init__, assigned=())
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        adapter = self.adapter
        adapter.claim()
        if adapter.ctc_guard and self.ctc is None:
            raise ValueError(
                f"{adapter.role}_conf: ctc_guard: true needs CTC, and model_conf "
                "has ctc_weight: 0.0"
            )
        if self.ctc is not None:
            adapter.guard_ctc()
        self._encoder_lengths: Tensor | None = None
        args = building_args()
        # Fine-tuning with ESPnet's --use_adapter may save only what it changed.
        self._saved_whole = (
            not getattr(args, "use_adapter", False)
            or getattr(args, "save_strategy", "all") == "all"
        )
        freeze_others(self, adapter)
        self.register_load_state_dict_post_hook(_check_keys)

    @property
    def adapter(self) -> Adapter:
        """The frontend, preencoder or encoder that is ours."""
        return only_adapter(self.frontend, self.preencoder, self.encoder)

    def train(self, mode: bool = True) -> OFAASRModel:
        """As usual, but where only lambda learns, the rest computes as in eval mode."""
        super().train(mode)
        evaluate_others(self, self.adapter)
        return self

    def encode(self, speech: Tensor, speech_lengths: Tensor) -> tuple[Any, Tensor]:
        """As in ESPnet; remembers the lengths that CTC will get."""
        out, lengths = super().encode(speech, speech_lengths)
        self._encoder_lengths = lengths
        return out, lengths

    def _calc_ctc_loss(
        self, encoder_out: Tensor, encoder_out_lens: Tensor, ys_pad: Tensor, *args: Any
    ) -> tuple[Tensor, Any]:
        """As in ESPnet, whose ``cer_ctc`` counts what CTC says on padding, too."""
        loss, cer = super()._calc_ctc_loss(encoder_out, encoder_out_lens, ys_pad, *args)
        if cer is not None:
            assert self.ctc is not None and self.error_calculator is not None
            best = self.ctc.argmax(encoder_out)
            inside = valid_mask(encoder_out_lens.to(best.device), best.shape[1])
            best = best.masked_fill(~inside, self.blank_id)
            cer = self.error_calculator(best.cpu(), ys_pad.cpu(), is_ctc=True)
        return loss, cer

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, statistics and weight; see :meth:`ESPnetASRModel.forward`."""
        adapter = self.adapter
        forward, batch = super().forward, (speech, speech_lengths, text, text_lengths)
        needed = needed_units(text, text_lengths)

        def passes() -> tuple[Tensor, dict[str, Any], Tensor]:
            self._encoder_lengths = None
            found = sandwich(adapter, lambda: forward(*batch, **kwargs))
            if self.ctc is not None and self._encoder_lengths is not None:
                short = self._encoder_lengths.to(needed.device) < needed
                found[1]["infeasible"] = short.float().mean()
            return found

        with self._unscored():
            return learn_lam(self, adapter, lambda: listen(adapter, needed, passes))

    @contextmanager
    def _unscored(self) -> Iterator[None]:
        """Where lambda learns alone, ESPnet takes a training step for validation, and
        would search and count errors in it."""
        names = [x for x in vars(self) if x.startswith("error_calculator")]
        kept = {name: getattr(self, name) for name in names}
        if self.adapter.alone and self.adapter.in_training:
            vars(self).update(dict.fromkeys(names))
        try:
            yield
        finally:
            vars(self).update(kept)


def _check_keys(model: OFAASRModel, keys: Any) -> None:
    """Refuse a checkpoint that does not fit, although ESPnet loads strict=False."""
    missing = keys.missing_keys
    if not model._saved_whole:  # then only what is ours has to be there
        ours = f"{model.adapter.role}."
        missing = [key for key in missing if key.startswith(ours)]
    whose = "this model (model: ofa)"
    refuse_checkpoint(whose, missing, keys.unexpected_keys)
