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
        ("file:///abs/me/.dist_init_3", ".dist_init_3"),
        ("PATH=/opt/a/bin:/home/me/b -I/usr/x/include", "PATH=bin:b -Iinclude"),
        ("--a ../../me/data ../x", "--a data x"),
        ("\"/home/my self/a b.scp\" '/x/y --b /c/d'", "\"a b.scp\" 'y --b d'"),
        (r"--a /home/my\ self/x.scp", "--a x.scp"),
        ("https://hf.co/u/x?y=/a/b s3://b/c/d", "https://hf.co/u/x?y=b s3://b/c/d"),
        ("cat //net//me/x ~me/y/z>/a/b/log", "cat x z>log"),
    ],
)
def test_hide_folders(text, hidden):
    assert hide_folders(text) == hidden
