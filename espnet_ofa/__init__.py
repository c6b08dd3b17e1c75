"""One speech encoder for every frame period: sequence compression for ESPnet.

Importing this package imports neither torch nor ESPnet: each public name is
loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers know it by; ``typing`` is slow to import
if TYPE_CHECKING:
    from espnet_ofa.plugin import register
    from espnet_ofa.report.budget import set_lam
    from espnet_ofa.subsampling.choice import set_squeeze
    from espnet_ofa.upstream import OFAUpstream

__version__ = "0.1.0"
__all__ = ["OFAUpstream", "__version__", "register", "set_lam", "set_squeeze"]

_HOMES = {
    "OFAUpstream": "espnet_ofa.upstream",
    "set_lam": "espnet_ofa.report.budget",
    "set_squeeze": "espnet_ofa.subsampling.choice",
    "register": "espnet_ofa.plugin",
}


def __getattr__(name: str) -> object:
    """Imports a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(_HOMES[name], fromlist=[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted({*globals(), *_HOMES})
