#!/usr/bin/env python3
"""The set that a configuration learns on: train; valid, where lambda learns alone."""

from __future__ import annotations

import sys

import yaml


def learning_set(conf: dict) -> str:
    """Valid, where a part named ofa has ``lam_conf: {alone: true}``."""
    parts = (conf.get(f"{role}_conf") for role in ("frontend", "preencoder", "encoder"))
    lams = ((part or {}).get("lam_conf") or {} for part in parts)
    return "valid" if any(lam.get("alone") for lam in lams) else "train"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(learning_set(yaml.safe_load(file) or {}))
