"""Segments from every source, through the commands: made, checked and scored."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_ofa.bin import ssl_boundaries, ssl_targets
from espnet_ofa.data.boundaries import Segmentation
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.table import DataError, read_table
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig

STATS = (
    Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1/pyscripts/ssl_stats.py"
)
SAMPLES = 16000
FRAMES = 49


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six utterances of eight tones each, whose ends are known."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    wav, boundaries = {}, {}
    for i in range(6):
        cuts = np.sort(rng.choice(np.arange(5, 46), 7, replace=False)) * 320 + 100
        ends = np.append(cuts, SAMPLES)
        hz = np.repeat(rng.permutation(8) * 400 + 300, np.diff(ends, prepend=0))
        wave = np.sin(2 * np.pi * np.cumsum(hz) / 16000)
        wave += 0.01 * rng.standard_normal(SAMPLES)
        soundfile.write(folder / f"u{i}.flac", 0.3 * wave, 16000)
        wav[f"u{i}"] = str(folder / f"u{i}.flac")
        boundaries[f"u{i}"] = Segmentation(ends / 16000)
    utt2spk = {utt: utt for utt in wav}
    samples = {utt: SAMPLES for utt in wav}
    DataDir(wav, utt2spk, None, samples, boundaries).write(folder / "known")
    DataDir(wav, utt2spk, None, samples).write(folder / "unknown")
    ctm = ""
    for utt, one in boundaries.items():
        starts = [0.0, *one.ends[:-1]]
        for start, end in zip(starts, one.ends, strict=True):
            ctm += f"{utt} 1 {start:.4f} {end - start:.4f} x\n"
    (folder / "ali.ctm").write_text(ctm)
    return folder


def targets(corpus, out, segments, which="unknown", *options):
    """Ends in frames of each utterance, and the mean length of segments."""
    ssl_targets.main(
        ["--data_dirs", str(corpus / which), "--output_dir", str(out)]
        + ["--num_codes", "8", "--segments", str(segments), *options]
    )
    table = read_table(out / which / "boundaries")
    facts = json.loads((out / which / "facts.json").read_text())
    return {u: [*map(int, ends.split())] for u, ends in table.items()}, facts


def test_alignments_and_the_corpus_own_agree(corpus, tmp_path):
    own, facts = targets(corpus, tmp_path / "own", "data", "known")
    given, _ = targets(corpus, tmp_path / "given", corpus / "ali.ctm")
    assert own == given and len(own["u0"]) == 8
    assert facts["segment_ms"] == pytest.approx(20 * FRAMES / 8, rel=0.02)


def test_detected_segments_have_the_rate_and_fit(corpus, tmp_path):
    found, facts = targets(
        corpus, tmp_path, "detect", "unknown", "--target_rate", str(8 / FRAMES)
    )
    assert all(ends[-1] == FRAMES for ends in found.values())
    assert facts["segment_ms"] == pytest.approx(20 * FRAMES / 8, rel=0.1)


def test_alignments_of_other_audio_are_refused(corpus, tmp_path):
    bad = tmp_path / "bad.ctm"
    lines = (corpus / "ali.ctm").read_text().splitlines(keepends=True)
    kept = (line for line in lines if not line.startswith("u1 "))
    bad.write_text("".join(kept) + "u1 1 0.0 3.0 x\n")
    with pytest.raises(DataError, match=r"bad.ctm: 1 prob(?s:.)*u1: segments end at 3"):
        targets(corpus, tmp_path / "out", bad)
    assert not (tmp_path / "out").exists()


def test_scores_of_sources_and_fires(corpus, tmp_path, capsys):
    targets(corpus, tmp_path / "own", "data", "known")
    config = UpstreamConfig(
        "logmel", {"dim": 8, "mels": 20}, dim=8, layers=1, heads=2, ff_dim=8,
        pos_kernel=3, pos_groups=1,
    )  # fmt: skip
    OFAUpstream(config).eval().save_pretrained(tmp_path / "up")
    ssl_boundaries.main(
        ["--data_dir", str(corpus / "known"), "--upstream", str(tmp_path / "up")]
        + ["--lams", "0", "1", "--output", str(tmp_path / "scores.md")]
        + ["--segments", f"own={tmp_path}/own/known"]
        + ["--alignments", f"ctm={corpus}/ali.ctm"]
    )
    text = (tmp_path / "scores.md").read_text()
    assert text in capsys.readouterr().out
    assert "6 utterances, 42 true boundaries; their segments last 125.0 ms" in text
    cells = [[c.strip() for c in line.split("|")] for line in text.splitlines()]
    rows = {row[1]: row[2:-1] for row in cells if len(row) > 2}
    perfect = ["100.0"] * 4
    assert rows["ctm"][:5] == ["125.0", *perfect]
    assert rows["own"][1:5] == perfect == rows["true ones, on 20 ms frames"][1:5]
    assert float(rows["own"][5]) < 80  # F1 of evenly spaced ones
    every = rows["fires at lambda 0"]
    assert every[0] == f"{1000 / FRAMES:.1f}" and every[2] == "100.0"
    assert float(every[1]) == pytest.approx(100 * 7 / (FRAMES - 1), abs=0.1)
    assert float(rows["fires at lambda 1"][0]) > 60


def test_what_cannot_be_scored(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="unknown/boundaries: not found; expec"):
        ssl_boundaries.main(["--data_dir", str(corpus / "unknown")])
    targets(corpus, tmp_path, "data", "known")
    path = tmp_path / "known/boundaries"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["u0 5 49 50\n", "u1 -3 49\n", *lines[3:]]))
    options = ["--data_dir", str(corpus / "known")]
    options += ["--segments", f"own={tmp_path}/known"]
    with pytest.raises(DataError) as error:
        ssl_boundaries.main(options)
    assert "u0: segments end at frame 50, the audio has 49" in str(error.value)
    assert "u1: segment ends must increase" in str(error.value)
    assert "u2 is missing: make targets" in str(error.value)
    with pytest.raises(ValueError, match="expected NAME=PATH, found 'own'"):
        ssl_boundaries.main([*options[:3], "own"])


def test_stage_7_names_segments_that_do_not_fit(corpus, tmp_path):
    targets(corpus, tmp_path, "data", "known")

    spec = importlib.util.spec_from_file_location("ssl_stats", STATS)
    stats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stats)
    places = (corpus / "known", tmp_path / "known", "data")
    assert stats.check_targets(*places) == {f"u{i}": str(SAMPLES) for i in range(6)}
    path = tmp_path / "known/boundaries"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["u0 5 48\n", *lines[1:]]))
    with pytest.raises(DataError, match="u0: segments end at frame 48, .* has 49"):
        stats.check_targets(*places)
