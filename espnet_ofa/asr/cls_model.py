"""``model: ofa`` of classification: ESPnet's model, with its adapter's losses."""

from __future__ import annotations

from typing import Any

import torch
from espnet2.cls.espnet_model import ESPnetClassificationModel
from torch import Tensor

from espnet_ofa.asr.adapter import Adapter, listen, only_adapter
from espnet_ofa.asr.building import refuse_checkpoint
from espnet_ofa.asr.slope import evaluate_others, freeze_others, learn_lam


class OFAClassificationModel(ESPnetClassificationModel):
    """ESPnet's classification model that listens to its ofa adapter.

    Needed only for a learned lambda, which follows the slope of the loss (see
    :func:`~espnet_ofa.asr.slope.learn_lam`), and for a price on units (``lam_price``)
    or ``guidance``, which are set on the adapter; also reports the measured
    ``period_ms`` and ``lam``. ESPnet's ``build_model`` knows one class only, so this
    one comes with :class:`espnet_ofa.tasks.cls.OFACLSTask`.

    Takes the arguments of :class:`ESPnetClassificationModel`.

    Raises:
        ValueError: not one adapter to listen to, a guard (there is no CTC), or (when
            loading) a checkpoint that lacks or adds a key anywhere in the model.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        adapter = self.adapter
        if adapter.sandwich:
            raise ValueError(
                f"{adapter.role}_conf: sandwich is for ASR, not for classification"
            )
        if adapter.ctc_guard:
            raise ValueError(
                f"{adapter.role}_conf: ctc_guard: true needs CTC, which a "
                "classification model lacks"
            )
        adapter.claim()
        freeze_others(self, adapter)
        self.register_load_state_dict_post_hook(_check_keys)

    @property
    def adapter(self) -> Adapter:
        """The frontend, preencoder or encoder that is ours.

        Looked for each time: a replica of DataParallel has parts of its own.
        """
        return only_adapter(self.frontend, self.preencoder, self.encoder)

    def train(self, mode: bool = True) -> OFAClassificationModel:
        """As usual, but where only lambda learns, the rest computes as in eval mode."""
        super().train(mode)
        evaluate_others(self, self.adapter)
        return self

    def forward(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        label: Tensor,
        label_lengths: Tensor,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, statistics and weight; see :class:`ESPnetClassificationModel`."""
        adapter = self.adapter
        forward, batch = super().forward, (speech, speech_lengths, label, label_lengths)
        needed = torch.ones_like(speech_lengths)  # one unit is enough to pool

        def step() -> tuple[Tensor, dict[str, Any], Tensor]:
            return listen(adapter, needed, lambda: forward(*batch, **kwargs))

        return learn_lam(self, adapter, step)


def _check_keys(model: OFAClassificationModel, keys: Any) -> None:
    """Refuse a checkpoint that does not fit, although ESPnet loads strict=False."""
    whose = "this model (model: ofa)"
    refuse_checkpoint(whose, keys.missing_keys, keys.unexpected_keys)
