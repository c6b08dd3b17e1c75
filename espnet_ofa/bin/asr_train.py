"""ESPnet's ASR training, with ``ofa`` among its choices.

``python -m espnet2.bin.asr_train`` does the same wherever espnet_ofa is installed;
this one also works from a source tree that is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from espnet_ofa.plugin import register

register()  # here, because spawned processes import this module without calling main


def main(cmd: Sequence[str] | None = None) -> None:
    """Train; the options are those of ``espnet2.bin.asr_train``."""
    from espnet2.bin.asr_train import main as espnet_main

    espnet_main(cmd)


if __name__ == "__main__":
    main()
