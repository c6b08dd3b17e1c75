"""The upstream that a frontend starts from, and what a trained config says of it."""

from __future__ import annotations

import logging
from pathlib import Path

from espnet_ofa.asr.building import building_args, loading_checkpoint
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.upstream.checkpoint import CONFIG_NAME, resolve

logger = logging.getLogger(__name__)


def is_bare(upstream: str | dict) -> bool:
    """True where ``upstream`` is only a config, for random weights."""
    return isinstance(upstream, dict) or upstream.endswith((".yaml", ".yml"))


def find_upstream(
    upstream: str | dict, recorded: dict | None
) -> tuple[UpstreamConfig, Path | None]:
    """Config of the upstream, and the directory of its weights if they are wanted.

    A config that was recorded at training time describes the checkpoint. Then weights
    are looked for only to train on (not when ESPnet loads a checkpoint right after),
    and they may be gone.
    """
    if isinstance(upstream, dict):
        return UpstreamConfig.from_dict(upstream), None
    if recorded is not None and loading_checkpoint():
        return UpstreamConfig.from_dict(recorded), None
    bare = is_bare(upstream)
    try:
        directory = None if bare else resolve(upstream)
        file = Path(upstream) if directory is None else directory / CONFIG_NAME
        config = UpstreamConfig.from_yaml(file)
    except OSError as e:  # missing, or a hub that cannot be reached
        if recorded is None:
            raise
        if not bare:
            logger.warning(
                f"frontend: ofa: upstream {upstream} is not available ({e}); its "
                "weights must come from a checkpoint"
            )
        return UpstreamConfig.from_dict(recorded), None
    if recorded is None:
        _record(config)
    elif config != UpstreamConfig.from_dict(recorded):
        raise ValueError(
            f"{file} is not what upstream_config recorded: the upstream has changed. "
            "Remove upstream_config to train on the new one"
        )
    return config, directory


def _record(config: UpstreamConfig) -> None:
    """Write the upstream's config into the ``config.yaml`` that ESPnet will dump."""
    args = building_args()
    conf = getattr(args, "frontend_conf", None)
    if isinstance(conf, dict) and "upstream" in conf:
        conf["upstream_config"] = config.to_dict()
    else:
        logger.warning(
            "frontend: ofa: built outside ESPnet's build_model, so no config records "
            "the shape of the upstream; give it as a mapping to be self-contained"
        )
