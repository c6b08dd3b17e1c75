"""ESPnet's ASR training, with ``ofa`` among its choices.

``python -m espnet2.bin.asr_train`` does the same wherever espnet_ofa is installed, but
for one thing: this one stops where a loss is not finite, and says whose. It also works
from a source tree that is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(cmd: Sequence[str] | None = None) -> None:
    """Train; the options are those of ``espnet2.bin.asr_train``."""
    from espnet_ofa.tasks.asr import OFAASRTask

    OFAASRTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
