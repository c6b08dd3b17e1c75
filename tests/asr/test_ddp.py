"""Data-parallel training needs find_unused_parameters for frozen first steps only."""

from __future__ import annotations

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture
def process_group(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("torch was built without distributed")
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group(
        "gloo", init_method=store, rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "conf",
    [
        {"lam": 0.0},
        {"lam": 0.5, "lam_train": "uniform", "layer": 1},
        {"lam": 0.5, "freeze": True, "layer": "weighted"},
        {"lam": 0.5, "lam_train": "uniform", "sandwich": 1.0, "condition": ["lam"]},
        {"lam": "adaptive", "lam_price": 0.1, "guidance": 0.1, "ctc_guard": True},
        {"lam": "adaptive", "lam_conf": {"alone": True}},
        {"lam": 0.5, "lam_train": "uniform", "freeze_updates": 1},
    ],
)
def test_three_steps(process_group, build, batch, upstream_conf, conf):
    # A parameter without gradient makes the second forward raise.
    for norm_first in (False, True):
        upstream = {**upstream_conf, "norm_first": norm_first}
        conf = {"upstream": upstream, **conf}  # noqa: PLW2901
        model = build(
            model="ofa", frontend="ofa", frontend_conf=conf, init_param=["first.pth"]
        )
        parallel = DistributedDataParallel(
            model.train(), find_unused_parameters="freeze_updates" in conf
        )
        for _ in range(3):
            parallel(**batch)[0].sum().backward()
