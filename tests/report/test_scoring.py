"""Scoring against examples worked out by hand."""

import math

import pytest

from espnet_ofa.report.scoring import (
    Score,
    check_same_utterances,
    read_text,
    score,
    score_dir,
)

REFS = {"u1": "the cat sat", "u2": "on the mat", "u3": "yes"}
HYPS = {"u1": "the cat sat", "u2": "in mat", "u3": "yes yes"}


def test_words_by_hand():
    found = score(REFS, HYPS)
    # u2: on -> in, the deleted; u3: one yes too many. 7 words in all.
    assert found == Score(3, 7, 5, 1, 1, 1, 2, (0, 2, 1), (3, 3, 1))
    assert found.error_rate == pytest.approx(100 * 3 / 7)
    expected = [500 / 7, 100 / 7, 100 / 7, 100 / 7, 300 / 7, 200 / 3]
    assert found.percentages() == pytest.approx(expected)


def test_characters_count_spaces():
    found = score({"u": "a b"}, {"u": "ab"}, "cer")
    assert (found.tokens, found.correct, found.deletions) == (3, 2, 1)


def test_runs_of_space_are_one(tmp_path):
    (tmp_path / "text").write_text("u1  a   b \n\nu2\n")
    assert read_text(tmp_path / "text") == {"u1": "a b", "u2": ""}


def test_empty_hypothesis_and_empty_reference():
    found = score({"u1": "a b", "u2": ""}, {"u1": "", "u2": "c"})
    assert (found.deletions, found.insertions, found.wrong_sentences) == (2, 1, 2)


def test_no_words_at_all_is_nan_not_zero():
    assert math.isnan(score({"u": ""}, {"u": "a"}).error_rate)


def test_missing_and_extra_utterances_are_named():
    with pytest.raises(ValueError, match=r"where: 1 of 3 .* not decoded: u2"):
        check_same_utterances(REFS, {"u1": "", "u3": ""}, "where")
    with pytest.raises(ValueError, match=r"no reference: u9"):
        score(REFS, {**HYPS, "u9": "x"})
    many = {f"k{i}": "" for i in range(9)}
    with pytest.raises(ValueError, match=r"k0, k1, k2, k3, k4 and 4 more"):
        check_same_utterances(many, {}, "where")


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_text(tmp_path / "text")
    (tmp_path / "text").write_text("u1 a\nu1 b\n")
    with pytest.raises(ValueError, match=r"text:2: utterance u1 appears twice"):
        read_text(tmp_path / "text")


def test_result_files(tmp_path):
    reference = tmp_path / "ref"
    reference.write_text("".join(f"{k} {v}\n" for k, v in REFS.items()))
    (tmp_path / "text").write_text("".join(f"{k} {v}\n" for k, v in HYPS.items()))
    scores = score_dir(tmp_path, reference)
    lines = (tmp_path / "score_wer" / "result.txt").read_text().splitlines()
    average = next(line for line in lines if "Avg" in line).replace("|", " ").split()
    counts, shares = [3, 7], [71.4, 14.3, 14.3, 14.3, 42.9, 66.7]
    assert [float(v) for v in average[1:]] == counts + shares
    worst = lines.index("u2 (C S D I) 1 1 1 0")
    assert lines[worst + 1 : worst + 3] == ["REF: on the mat", "HYP: in mat"]
    assert worst < lines.index("u3 (C S D I) 1 0 0 1")
    assert not any(line.startswith("u1 ") for line in lines)
    assert (tmp_path / "score_cer" / "result.txt").is_file()
    assert scores["cer"].tokens == sum(map(len, REFS.values()))
