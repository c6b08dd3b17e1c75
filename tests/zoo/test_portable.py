"""Configs that travel: what is kept, what comes along, what is hidden."""

from pathlib import Path

import pytest

from espnet_ofa.zoo.portable import free_name, hide_folders, portable


def test_names_that_espnet_model_zoo_would_replace():
    taken = {Path(name) for name in ("exp", "exp_", "report")}
    assert free_name("exp", taken) == "exp__"
    assert free_name("asr", taken) == "asr"


def test_portable_config(tmp_path):
    stats = tmp_path / "stats.npz"
    stats.write_bytes(b"1")
    config = {
        "token_list": ["/bin", str(stats)],
        "normalize_conf": {"stats_file": str(stats)},
        "frontend_conf": {"download_dir": "/home/me/hub", "n_fft": 512},
        "output_dir": "/home/me/exp",
        "init_param": ["/home/me/x.pth"],
    }
    clean = portable(config, lambda path: f"packed/{path.name}")
    assert clean == {
        "token_list": ["/bin", str(stats)],
        "normalize_conf": {"stats_file": "packed/stats.npz"},
        "frontend_conf": {"download_dir": "hub", "n_fft": 512},
        "output_dir": None,
        "init_param": [],
    }
    assert config["output_dir"] == "/home/me/exp"
    unknown = {"frontend": "ofa", "frontend_conf": {"upstream": "user/hubert"}}
    with pytest.raises(ValueError, match="user/hubert, and no upstream_config"):
        portable(unknown, str)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("--a /x/y/z.scp,speech --b=~/q/r", "--a z.scp,speech --b=r"),
        ("exp/a/b https://hf.co/user/x 3/4", "exp/a/b https://hf.co/user/x 3/4"),
        ('"/data/dump/", /tmp', '"dump", /tmp'),
    ],
)
def test_hide_folders(text, hidden):
    assert hide_folders(text) == hidden
