"""Alignments of others: what they look like, and what is wrong with some."""

import numpy as np
import pytest

from espnet_ofa.data.alignments import read_alignments
from espnet_ofa.data.boundaries import Segmentation, write_boundaries
from espnet_ofa.data.table import DataError
from espnet_ofa.data.textgrid import Interval, read_tier

SECONDS = {"a-1": 1.0, "b-2": 0.5}

CTM = """;; a comment
a-1 1 0.00 0.20 SIL
a-1 1 0.20 0.15 h_B 0.98
a-1 1 0.35 0.25 i:_E
a-1 A 0.70 0.10 x_S
b-2 1 0.105 0.20 42
"""
LENGTHS = """a-1 1 20 ; 14 30 ; 7 48
b-2 3 49
"""
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = {seconds}
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = {seconds}
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = {seconds}
            text = "say ""1 2"" twice"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = {seconds}
        points: size = 1
        points [1]:
            number = 0.3
            mark = "!"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = {seconds}
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.05
            text = ""
        intervals [2]:
            xmin = 0.05
            xmax = 0.1
            text = "sp"
        intervals [3]:
            xmin = 0.1
            xmax = 3e-1
            text = "ɛ"
        intervals [4]:
            xmin = 0.3
            xmax = {seconds}
            text = "spn"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
{seconds}
<exists>
1
"IntervalTier"
"phones"
0
{seconds}
4
0
0.05
""
0.05
0.1
"sp"
0.1
0.3
"ɛ"
0.3
{seconds}
"spn"
"""


def written(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def test_ctm(tmp_path):
    found = read_alignments(written(tmp_path, "ctm", CTM), SECONDS)
    np.testing.assert_allclose(found["a-1"].ends, [0.2, 0.35, 0.6, 0.7, 0.8, 1.0])
    assert found["a-1"].phones == ("sil", "h_B", "i:_E", "sil", "x_S", "sil")
    np.testing.assert_allclose(found["b-2"].ends, [0.105, 0.305, 0.5])
    assert found["b-2"].phones == ("sil", "42", "sil")


def test_lengths_of_kaldi(tmp_path):
    path = written(tmp_path, "ali.lengths", LENGTHS)
    found = read_alignments(path, SECONDS)
    # 98 and 49 frames of 10 ms: Kaldi's windows end with the audio or before.
    np.testing.assert_allclose(found["a-1"].ends, [0.2, 0.5, 1.0])
    assert found["a-1"].phones == ("1", "14", "7")
    twice = {utt: 2 * seconds - 0.015 for utt, seconds in SECONDS.items()}
    found = read_alignments(path, twice, frame_ms=20)
    np.testing.assert_allclose(found["a-1"].ends, [0.4, 1.0, 1.985])


@pytest.mark.parametrize("form", [LONG, SHORT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_folder_of_textgrids(tmp_path, form, encoding):
    for utt, seconds in SECONDS.items():
        text = form.format(seconds=seconds)
        written(tmp_path, f"{utt[0]}/{utt}.TextGrid", text, encoding)
    found = read_alignments(tmp_path, SECONDS)
    assert found["b-2"].phones == ("sil", "ɛ", "spn")  # silences are merged
    np.testing.assert_allclose(found["b-2"].ends, [0.1, 0.3, 0.5])
    np.testing.assert_allclose(found["a-1"].ends, [0.1, 0.3, 1.0])
    one = tmp_path / "a/a-1.TextGrid"
    assert read_alignments(one, {"a-1": 1.0})["a-1"].phones == found["a-1"].phones


def test_quotes_in_labels(tmp_path):
    path = written(tmp_path, "a-1.TextGrid", LONG.format(seconds=1))
    assert read_tier(path, "words") == [Interval(0.0, 1.0, 'say "1 2" twice')]


def test_our_own_format_comes_back_as_it_was(tmp_path):
    rng = np.random.default_rng(0)
    made = {
        utt: Segmentation(np.append(np.sort(rng.uniform(0, seconds, 9)), seconds))
        for utt, seconds in SECONDS.items()
    }
    write_boundaries(tmp_path, made)
    for path in (tmp_path, tmp_path / "boundaries"):
        found = read_alignments(path, SECONDS)
        for utt in SECONDS:
            np.testing.assert_allclose(found[utt].ends, made[utt].ends, atol=1e-6)
            assert found[utt].phones is None


def test_copies_at_another_speed_share_segments(tmp_path):
    seconds = {"a-1": 1.0, "sp1.1-a-1": 1 / 1.1, "sp0.9-a-1": 1 / 0.9}
    found = read_alignments(written(tmp_path, "x.ctm", CTM), seconds)
    for utt, long in seconds.items():
        np.testing.assert_allclose(found[utt].ends, long * found["a-1"].ends)
        assert found[utt].phones == found["a-1"].phones


def test_small_disagreements_are_rounding(tmp_path):
    text = "a-1 1 0.003 0.5 x\na-1 1 0.498 0.52 y\na-1 1 1.015 0.01 z\n"
    found = read_alignments(written(tmp_path, "x.ctm", text), {"a-1": 1.0})
    np.testing.assert_allclose(found["a-1"].ends, [0.503, 1.0])
    assert found["a-1"].phones == ("x", "y")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.ctm", "a-1 1 0.0 1.2 x\n", r"a-1: segments end at 1.200 s, its audio at 1"),
        ("x.ctm", "a-1 1 0.5 0.2 x\na-1 1 0.1 0.3 y\n", r"a-1: .*'y' starts at 0.100"),
        ("x.ctm", "a-1 1 0.5 0.2 x\na-1 1 0.6 0.2 y\n", r"a-1: .*ends at 0.700 s"),
        ("x.ctm", "a-1 1 0 0.5 x\na-1 1 0.495 0.004 y\n", r"a-1: .*at 0.500 s"),
        ("x.ctm", "a-1 1 -0.1 0.2 x\n", r"a-1: segment 'x' from -0.100 to 0.100 s"),
        ("x.ctm", "a-1 1 0.1 0 x\n", r"a-1: segment 'x' from 0.100 to 0.100 s"),
        ("x.ctm", "a-1 1 0.1 nan x\n", r"a-1: segment 'x' from 0.100 to nan s"),
        ("x.ctm", "a-1 1 0.1\n", r"line 1: expected `utt channel start .*'a-1 1 0.1'"),
        ("x.ctm", "a-1 1 zero 1 x\n", r"line 1: expected `utt channel start"),
        ("x.ctm", "a-2 1 0.1 0.2 x\n", r"a-1: expected segments, found none: align it"),
        ("x.lengths", "a-1 1 98 ; 2\n", r"a-1: expected `phone frames ; .*'1 98 ; 2'"),
        ("x.lengths", "a-1 1 -98\n", r"a-1: expected `phone frames"),
        ("x.lengths", "a-1 1 60\n", r"a-1: segments end at 0.600 s, its audio at 1.0"),
        ("boundaries", "a-1 0.5 0.4 1.0\n", r"a-1: ends must increase"),
        ("boundaries", "a-1 -0.5 1.0\n", r"a-1: ends must increase"),
        ("boundaries", "a-1 0.5 0.7\n", r"a-1: segments end at 0.700 s, its audio at"),
        ("ali.gz", "?", r"unknown kind of alignments: expected a file named"),
        ("a-1.TextGrid", "hello", r"a-1: .*a-1.TextGrid: expected a TextGrid as text"),
        ("a-1.TextGrid", "\0\xff", r"a-1: .*a-1.TextGrid: expected a TextGrid as text"),
        ("a-1.TextGrid", SHORT[:90], r"a-1: .*a-1.TextGrid: expected a TextGrid"),
        ("a-1.TextGrid", SHORT.format(seconds=2.5), r"a-1: segments end at 2.500 s"),
    ],
)
def test_bad_files_name_themselves_and_the_utterance(tmp_path, name, text, message):
    path = written(tmp_path, name, text, "latin-1" if "\xff" in text else "utf-8")
    with pytest.raises(DataError, match=rf"(?s){path.name}.*{message}"):
        read_alignments(path, {"a-1": 1.0})


def test_tiers_that_do_not_serve(tmp_path):
    path = written(tmp_path, "a-1.TextGrid", LONG.format(seconds=1.0))
    with pytest.raises(DataError, match=r"a-1: .*'mfa', found 'words', 'clicks', 'ph"):
        read_alignments(path, {"a-1": 1.0}, tier="mfa")
    with pytest.raises(DataError, match=r"a-1: .*'clicks' holds points, expected int"):
        read_alignments(path, {"a-1": 1.0}, tier="clicks")


def test_folders_that_do_not_serve(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        read_alignments(tmp_path / "nowhere", SECONDS)
    with pytest.raises(DataError, match=r"or \*.TextGrid in the folder, found none"):
        read_alignments(tmp_path, SECONDS)
    for folder in ("one", "two"):
        written(tmp_path, f"{folder}/a-1.TextGrid", SHORT.format(seconds=1))
    with pytest.raises(DataError, match=r"a-1: both .*one/a-1.* and .*two/a-1"):
        read_alignments(tmp_path, {"a-1": 1.0})


def test_all_problems_at_once(tmp_path):
    path = written(tmp_path, "x.ctm", "a-1 1 0.0 1.2 x\n")
    with pytest.raises(DataError) as error:
        read_alignments(path, SECONDS)
    assert len(error.value.problems) == 2
