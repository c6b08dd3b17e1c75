"""Pre-train an upstream with ESPnet's trainer.

Options are those of every ESPnet task (``--config``, ``--max_epoch``, ...).
"""

from __future__ import annotations

from espnet_ofa.tasks.ssl import OFASSLTask


def get_parser():
    """The parser, for ``--help`` and documentation."""
    return OFASSLTask.get_parser()


def main(cmd=None) -> None:
    """Run pre-training.

    Example:
        python -m espnet_ofa.bin.ssl_train --config conf/train_ssl.yaml \
            --output_dir exp/ssl ...
    """
    OFASSLTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
