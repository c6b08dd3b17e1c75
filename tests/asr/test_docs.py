"""docs/roles.md says what the plugin does."""

from __future__ import annotations

import re
from pathlib import Path

from espnet_ofa.plugin import ROLES

DOC = Path(__file__).parents[2] / "docs" / "roles.md"


def test_table_of_roles():
    table = {}
    names = ("frontend", "preencoder", "encoder", "decoder", "pooling", "model")
    for line in DOC.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `espnet2."):
            module, *cells = (c.strip() for c in line.strip("|").split("|"))
            table[module.strip("`")] = tuple(
                n for n, c in zip(names, cells, strict=True) if c == "yes"
            )
    assert table == ROLES
    assert re.search(r"`model: ofa` exists for ASR", DOC.read_text(encoding="utf-8"))
