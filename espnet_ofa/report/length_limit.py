"""A maximum length of hypotheses that does not depend on lambda.

ESPnet's search offers ``maxlenratio: 0`` (at most as many tokens as encoder outputs:
lambda would decide) or a constant. The constant has two drawbacks, which are mended
here: it turns end detection off, so that every utterance takes all the steps it allows;
and a search with CTC that outlives the encoder outputs fails with an IndexError (ESPnet
202511), although CTC gives such a hypothesis no probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from espnet_ofa.report.meter import EncoderMeter

_STEPS = 3  # lengths that must all be hopeless
_HOPELESS = -10.0  # log probability behind the best


def end_detected(ended: Sequence[Any], step: int) -> bool:
    """Have hypotheses of the last lengths ended far below the best one?

    Reference: Watanabe et al., "Hybrid CTC/Attention Architecture for End-to-End Speech
    Recognition", 2017, equation 50.

    Args:
        ended: hypotheses with ``yseq`` and ``score``.
        step: tokens so far, minus one.
    """
    if not ended:
        return False
    best: dict[int, float] = {}
    for hyp in ended:
        length, score = len(hyp.yseq), float(hyp.score)
        best[length] = max(best.get(length, -math.inf), score)
    top = max(best.values())
    lengths = range(step, step - _STEPS, -1)
    return all(n in best and best[n] - top < _HOPELESS for n in lengths)


class LengthLimit:
    """Takes the place of ``beam_search.post_process``, ESPnet's hook after each step.

    Args:
        beam_search: ESPnet's, for one utterance at a time.
        maximum: tokens allowed at any lambda.
        meter: knows how many encoder outputs the utterance has.

    Attributes:
        limit: tokens allowed in the latest utterance: fewer than ``maximum`` where CTC
            takes part and there are fewer encoder outputs.
    """

    def __init__(self, beam_search: Any, maximum: int, meter: EncoderMeter) -> None:
        self._stock = beam_search.post_process
        self._uses_ctc = "ctc" in {
            *beam_search.full_scorers,
            *beam_search.part_scorers,
        }
        self._maximum = maximum
        self._meter = meter
        self.limit = maximum

    def __call__(
        self,
        i: int,
        maxlen: int,
        minlen: int,
        maxlenratio: float,
        running_hyps: Any,
        ended_hyps: list[Any],
    ) -> Any:
        """Collect what ended at step ``i``; return what goes on, nothing at the end."""
        if self._uses_ctc and self._meter.last_lengths is not None:
            units = int(self._meter.last_lengths[0])
            self.limit = max(min(self._maximum, units), 1)
        endless = i + 2  # a maximum that this step does not reach
        running = self._stock(i, endless, minlen, maxlenratio, running_hyps, ended_hyps)
        if len(running) == 0:
            return running
        kept = list(ended_hyps)
        hopeless = end_detected(ended_hyps, i)
        if hopeless or i + 1 >= self.limit:
            running = self._stock(i, i + 1, minlen, maxlenratio, running, ended_hyps)
            if hopeless:  # those that went on do not count as ended
                ended_hyps[:] = kept
        return running
