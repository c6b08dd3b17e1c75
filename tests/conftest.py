"""Settings every test shares."""

from __future__ import annotations

import os

from hypothesis import settings

# Before torch is loaded: parallel test workers share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine must not fail a property test for being slow.
settings.register_profile("espnet_ofa", deadline=None)
settings.load_profile("espnet_ofa")
