"""A card's results are those of the packed checkpoint, by its content."""

from __future__ import annotations

import pytest
import torch

from espnet_ofa.report.budget import model_checksum
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.zoo.results import own_rows

WEIGHTS = {"ctc.weight": torch.ones(2)}
OWN = model_checksum(WEIGHTS)


def decoded(folder, model_sha256: str | None, setup: dict | None = None) -> None:
    """Results of one test set, decoded with weights of that sum."""
    folder = folder / "decode_ctc" / "lam0" / "test"
    folder.mkdir(parents=True)
    (folder / "text").write_text("u1 a b\n")
    (folder.parent.parent / "ref").write_text("u1 a c\n")
    stats = DecodeStats("test", lam=0.0, utterances=1, units=5, setup=setup or {})
    stats.reference = str(folder.parent.parent / "ref")
    stats.model_sha256 = model_sha256
    stats.save(folder)


@pytest.fixture
def checkpoint(tmp_path):
    """A link to an averaged checkpoint, as ESPnet leaves it."""
    (tmp_path / "asr_mine").mkdir()
    (tmp_path / "asr_mine/valid.loss.ave_1best.pth").touch()
    link = tmp_path / "asr_mine/valid.loss.ave.pth"
    link.symlink_to("valid.loss.ave_1best.pth")
    return link


def test_own_results_wherever_they_were_made(checkpoint):
    setup = {"search": "greedy", "model": "/elsewhere/asr_x/1epoch.pth"}
    decoded(checkpoint.parent, OWN, {**setup, "bpemodel": "/cache/x/bpe.model"})
    (row,) = own_rows(checkpoint.parent, checkpoint, OWN)
    assert row.wer == 50 and row.stats.setup == {"search": "greedy"}


@pytest.mark.parametrize("found", [model_checksum({}), None])
def test_results_of_other_weights_are_left_out_with_a_word(checkpoint, found, caplog):
    decoded(checkpoint.parent, found, {"model": str(checkpoint)})  # of the same name
    (checkpoint.parent / "decode_ctc" / "ref").unlink()  # nor can it be scored
    assert own_rows(checkpoint.parent, checkpoint, OWN) == []
    told = "no checksum" if found is None else f"sha256 {found[:12]}"
    assert f"results of {checkpoint} with {told}, not of" in caplog.text
    assert "decode again" in caplog.text


def test_results_that_took_more_than_the_package_are_left_out(checkpoint, caplog):
    setup = {"search": "beam", "lm_weight": 0.3, "lm_file": "exp/lm/valid.pth"}
    decoded(checkpoint.parent, OWN, setup)
    assert own_rows(checkpoint.parent, checkpoint, OWN) == []
    assert "decoded with exp/lm/valid.pth too" in caplog.text


def test_nothing_decoded(checkpoint):
    assert own_rows(checkpoint.parent, checkpoint, OWN) == []
