"""The LibriSpeech layout, whole and in every state of disrepair."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import prepare as program
from espnet_ofa.data.kaldi_dir import DataDir


def prepare(corpus: Path, out: Path, *options: str, parts: str = "some-part") -> int:
    return program.main(
        [
            *("--corpus_dir", str(corpus), "--parts", parts),
            *("--out_dir", str(out), "--nj", "1", *options),
        ]
    )


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_whole_corpus(make_corpus, tmp_path, suffix):
    corpus = make_corpus(suffix=suffix)
    assert prepare(corpus, tmp_path / "train") == 0
    data = DataDir.read(tmp_path / "train")
    assert len(data) == 18
    assert list(data.spk2utt) == ["19", "26", "32"]
    assert data.text is not None and data.text["26-8-0002"] == "WORDS OF 26"
    assert Path(data.wav["26-8-0002"]).is_absolute()
    assert Path(data.wav["26-8-0002"]).is_file()
    assert not (tmp_path / "train.problems.log").exists()


def test_parts_are_merged_and_found_in_three_places(make_corpus, tmp_path):
    corpus = make_corpus("part-a")
    (corpus / "part-a" / "32").rename(corpus / "32")
    (corpus / "LibriSpeech" / "part-b").mkdir(parents=True)
    (corpus / "32").rename(corpus / "LibriSpeech" / "part-b" / "32")
    assert prepare(corpus, tmp_path / "x", parts="part-a part-b") == 0
    assert len(DataDir.read(tmp_path / "x")) == 18
    assert prepare(corpus / "part-a", tmp_path / "y", parts="part-a") == 0
    assert len(DataDir.read(tmp_path / "y")) == 12


def test_the_first_part_that_is_there(make_corpus, tmp_path):
    corpus = make_corpus("part-b")
    assert prepare(corpus, tmp_path / "x", parts="part-a|part-b") == 0
    (corpus / "part-b").rename(corpus / "part-b2")
    (corpus / "librispeech_20").mkdir()
    (corpus / "part-b2").rename(corpus / "librispeech_20" / "part-b")
    assert prepare(corpus, tmp_path / "y", parts="part-a|part-b") == 0
    assert len(DataDir.read(tmp_path / "y")) == 18


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_audio_alone_will_do_where_no_transcripts_are_wanted(
    make_corpus, tmp_path, suffix
):
    corpus = make_corpus(suffix=suffix)
    assert prepare(corpus, tmp_path / "with", "--audio_only") == 0
    for path in corpus.rglob("*.trans.txt"):
        path.unlink()
    assert prepare(corpus, tmp_path / "without", "--audio_only") == 0
    data = DataDir.read(tmp_path / "without")
    assert len(data) == 18 and data.text is None
    assert list(data.spk2utt) == ["19", "26", "32"]
    assert DataDir.read(tmp_path / "with") == data
    assert prepare(corpus, tmp_path / "x") == 1


def test_audio_alone_is_checked_all_the_same(make_corpus, tmp_path):
    part = make_corpus() / "some-part"
    (part / "19" / "7" / "19-7-0000.flac").write_bytes(b"")
    (part / "19" / "7" / "19-7-0001.flac").rename(part / "19" / "8" / "song.flac")
    assert prepare(part, tmp_path / "x", "--audio_only") == 1
    log = (tmp_path / "x.problems.log").read_text()
    assert "unreadable audio: 1" in log and "19-7-0000" in log
    assert "audio not named SPK-CHAPTER-UTT as its folders: 1" in log
    assert "song.flac" in log
    assert prepare(part, tmp_path / "x", "--audio_only", "--skip_bad") == 0
    assert len(DataDir.read(tmp_path / "x")) == 16
    (tmp_path / "some-part").mkdir()
    assert prepare(tmp_path, tmp_path / "y", "--audio_only") == 1


def test_missing_part_says_where_it_looked(make_corpus, tmp_path, capsys):
    assert prepare(make_corpus(), tmp_path / "x", parts="other") == 1
    error = capsys.readouterr().err
    assert "other is not in" in error and "LibriSpeech/other" in error


def test_directory_that_is_no_corpus(tmp_path, capsys):
    (tmp_path / "corpus" / "some-part").mkdir(parents=True)
    assert prepare(tmp_path / "corpus", tmp_path / "x") == 1
    assert "no SPK/CHAPTER/SPK-CHAPTER.trans.txt" in capsys.readouterr().err


def break_corpus(part: Path) -> dict[str, str]:
    """Breaks one file in each way; returns the name of each and its kind."""
    first = part / "19" / "7"
    (first / "19-7-0000.flac").unlink()
    whole = (first / "19-7-0001.flac").read_bytes()
    (first / "19-7-0001.flac").write_bytes(whole[: len(whole) // 2])
    (first / "19-7-0002.flac").write_bytes(b"")
    trans = part / "26" / "7" / "26-7.trans.txt"
    lines = trans.read_text().splitlines()
    # line 1 goes, line 2 loses its words, line 3 is there twice, and a foreign id
    trans.write_text(
        "\n".join([lines[1].split()[0], lines[2], lines[2], "99-9-0000 WORDS"]) + "\n"
    )
    (part / "32" / "8" / "32-8.trans.txt").unlink()
    (part / "32" / "7" / "32-7-0000.wav").write_bytes(whole)
    return {
        "19-7-0000": "transcript without audio",
        "19-7-0001": "unreadable audio",
        "19-7-0002": "unreadable audio",
        "26-7-0000": "audio without transcript",
        "26-7-0001": "empty transcript",
        "26-7-0002": "transcript given twice",
        "99-9-0000": "id that does not fit its file",
        "32-8-0001": "audio without transcript",
        "32/8": "chapter without trans.txt",
        "32-7-0000": "audio given twice",
    }


def test_broken_corpus_is_reported_file_by_file(make_corpus, tmp_path, capsys):
    corpus = make_corpus()
    expected = break_corpus(corpus / "some-part")
    assert prepare(corpus, tmp_path / "train") == 1
    assert not (tmp_path / "train").exists()
    sections: dict[str, str] = {}
    kind = ""
    for line in (tmp_path / "train.problems.log").read_text().splitlines():
        if line.startswith("PROBLEM: "):
            kind = line.removeprefix("PROBLEM: ").rpartition(":")[0]
            sections[kind] = ""
        else:
            sections[kind] += line + "\n"
    for name, kind in expected.items():
        assert name in sections[kind], (name, kind)
    error = capsys.readouterr().err
    assert "train.problems.log" in error and "--skip_bad" in error
    assert "audio without transcript: 5" in error


@pytest.mark.parametrize("options", [(), ("--audio_only",)])
def test_empty_folders_are_reported(make_corpus, tmp_path, options):
    part = make_corpus() / "some-part"
    shutil.rmtree(part / "19" / "7")
    shutil.rmtree(part / "19" / "8")
    for path in (part / "26" / "7").iterdir():
        path.unlink()
    (part / ".cache").mkdir()
    assert prepare(part, tmp_path / "x", *options) == 1
    log = (tmp_path / "x.problems.log").read_text()
    assert "speaker's folder without audio: 1" in log and f"{part}/19\n" in log
    assert f"{part}/26/7\n" in log and ".cache" not in log


SPEAKERS = """; a comment
;ID  |SEX| SUBSET           |MINUTES| NAME
19   | F | part-a           | 25.19 | Kara
26   | M | part-a           |  8.02 | |CBW|Simon
32   | F | part-a           | 24.01 | Betsie
"""
OTHERS = "84   | F | part-b           | 8.02  | Christie\n"
UTT_MAP = "utt_id\toriginal_utt\toriginal_speaker\tgender\toriginal_split\n" + "".join(
    f"{speaker}-1-0000\tan1-x-b\tx\tF\t{part}\n"
    for speaker, part in [
        ("19", "part-a"),
        ("26", "part-a"),
        ("32", "part-a"),
        ("9", "b"),
    ]
)


@pytest.mark.parametrize(
    ("name", "table", "part", "told"),
    [
        ("SPEAKERS.TXT", SPEAKERS + OTHERS, "part-a", True),
        ("SPEAKERS.TXT", SPEAKERS, "cut-from-a", True),
        # A table of more than this part, of which the part was cut from.
        ("SPEAKERS.TXT", SPEAKERS + OTHERS, "cut-from-a", False),
        ("utt_map.tsv", UTT_MAP, "part-a", True),
    ],
)
def test_missing_speakers_are_named_where_a_table_tells(
    make_corpus, tmp_path, name, table, part, told
):
    corpus = make_corpus(part)
    (corpus / name).write_text(table)
    assert prepare(corpus, tmp_path / "x", parts=part) == 0
    assert not (tmp_path / "x.problems.log").exists()
    shutil.rmtree(corpus / part / "26")
    assert prepare(corpus, tmp_path / "x", parts=part) == 0  # a subset is a corpus
    if told:
        log = (tmp_path / "x.problems.log").read_text()
        assert log == f"note: listed speaker who is missing: 1\n  {corpus}/{part}/26\n"


def test_a_table_of_another_part_says_nothing(make_corpus, tmp_path):
    corpus = make_corpus("dev-clean")
    (corpus / "SPEAKERS.TXT").write_text(SPEAKERS.replace("19 ", "84 "))
    assert prepare(corpus, tmp_path / "x", parts="dev-clean") == 0
    assert "PROBLEM" not in (tmp_path / "x.problems.log").read_text()


def test_long_lists_are_shortened_on_screen_only(make_corpus, tmp_path, capsys):
    corpus = make_corpus()
    for path in (corpus / "some-part").glob("*/*/*.flac"):
        if "-000" in path.name and path.stem[:2] != "19":
            path.unlink()
    assert prepare(corpus, tmp_path / "train") == 1
    error = capsys.readouterr().err
    assert error.count("-000") == 5 and "and 7 more" in error
    assert (tmp_path / "train.problems.log").read_text().count("-000") == 12


def test_skip_bad_leaves_out_what_is_broken(make_corpus, tmp_path):
    corpus = make_corpus()
    break_corpus(corpus / "some-part")
    assert prepare(corpus, tmp_path / "train", "--skip_bad") == 0
    left = DataDir.read(tmp_path / "train").utterances
    assert len(left) == 18 - 3 - 2 - 3
    assert not {"19-7-0000", "19-7-0001", "19-7-0002", "26-7-0000"} & set(left)
    assert (tmp_path / "train.problems.log").exists()


def test_a_mended_corpus_loses_its_log(make_corpus, tmp_path):
    corpus = make_corpus()
    path = corpus / "some-part" / "19" / "7" / "19-7-0000.flac"
    whole = path.read_bytes()
    path.unlink()
    assert prepare(corpus, tmp_path / "train") == 1
    path.write_bytes(whole)
    assert prepare(corpus, tmp_path / "train") == 0
    assert not (tmp_path / "train.problems.log").exists()


def test_other_sample_rates_are_noted(make_corpus, tmp_path, write_noise, capsys):
    corpus = make_corpus()
    write_noise(corpus / "some-part" / "19" / "7" / "19-7-0000.flac", 8000)
    assert prepare(corpus, tmp_path / "train") == 0
    error = capsys.readouterr().err
    assert "note: sample rate is not 16000" in error
    assert "19-7-0000.flac: 8000 Hz" in error


def test_subset_of_a_published_part_is_noted(make_corpus, tmp_path, capsys):
    corpus = make_corpus("dev-clean-2")
    assert prepare(corpus, tmp_path / "dev", parts="dev-clean-2") == 0
    assert "18 of 1089 utterances" in capsys.readouterr().err
