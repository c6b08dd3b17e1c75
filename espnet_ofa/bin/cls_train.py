"""ESPnet's classification training, with ``ofa`` among its choices.

``python -m espnet2.bin.cls_train`` does the same wherever espnet_ofa is installed, but
for ``model: ofa`` (a price on units, guidance), which ESPnet's task would not build,
and for losses that are not finite, at which this one stops.
"""

from __future__ import annotations

from collections.abc import Sequence

from espnet_ofa.tasks.cls import OFACLSTask


def main(cmd: Sequence[str] | None = None) -> None:
    """Train; the options are those of ``espnet2.bin.cls_train``."""
    OFACLSTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
