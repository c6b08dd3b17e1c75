"""A card's results are those of the packed checkpoint of its own training."""

from __future__ import annotations

import pytest

from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.zoo.results import own_rows

CHECKPOINT = "valid.loss.ave.pth"


def decoded(folder, model: str | None) -> None:
    """Results of one test set, decoded with ``model``."""
    folder = folder / "decode_ctc" / "lam0" / "test"
    folder.mkdir(parents=True)
    (folder / "text").write_text("u1 a b\n")
    (folder.parent.parent / "ref").write_text("u1 a c\n")
    setup = {"search": "greedy"} | ({} if model is None else {"model": model})
    stats = DecodeStats("test", lam=0.0, utterances=1, units=5, setup=setup)
    stats.reference = str(folder.parent.parent / "ref")
    stats.save(folder)


@pytest.fixture
def exp(tmp_path):
    folder = tmp_path / "asr_mine"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "model", [f"exp/asr_mine/{CHECKPOINT}", f"/elsewhere/asr_mine/{CHECKPOINT}"]
)
def test_own_results_wherever_they_were_made(exp, model):
    decoded(exp, model)
    (row,) = own_rows(exp, CHECKPOINT)
    assert row.wer == 50 and row.stats.setup == {"search": "greedy"}


@pytest.mark.parametrize(
    "model",
    [
        f"exp/asr_other/{CHECKPOINT}",  # an equal name, and not the same model
        "exp/asr_mine/valid.loss.best.pth",
        "user/asr_mine",
        CHECKPOINT,
        None,
    ],
)
def test_results_of_others_are_left_out_with_a_word(exp, model, caplog):
    decoded(exp, model)
    assert own_rows(exp, CHECKPOINT) == []
    assert f"results of {model or 'an unnamed model'}, not of" in caplog.text


def test_a_link_to_the_folder_is_the_folder(exp, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(exp)
    decoded(exp, f"exp/latest/{CHECKPOINT}")
    assert len(own_rows(link, CHECKPOINT)) == 1
    assert own_rows(exp, CHECKPOINT) == []
