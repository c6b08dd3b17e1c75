"""Decoding with a tiny ESPnet model: what is written, and whether it is true."""

import logging
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import espnet_ofa

espnet_ofa.register()  # where the package is on the path but not installed

import espnet2.bin.asr_inference as stock  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from espnet2.asr.espnet_model import ESPnetASRModel  # noqa: E402
from espnet2.tasks.asr import ASRTask  # noqa: E402

from espnet_ofa.bin import asr_inference, report, ssl_align  # noqa: E402
from espnet_ofa.data.alignments import read_alignments  # noqa: E402
from espnet_ofa.data.kaldi_dir import DataDir  # noqa: E402
from espnet_ofa.data.table import DataError  # noqa: E402
from espnet_ofa.report import decoding  # noqa: E402
from espnet_ofa.report.budget import model_checksum  # noqa: E402
from espnet_ofa.report.length_limit import LengthLimit, end_detected  # noqa: E402
from espnet_ofa.report.scoring import read_text  # noqa: E402
from espnet_ofa.report.stats import load_stats  # noqa: E402
from espnet_ofa.report.tables import lambda_table  # noqa: E402

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
SECONDS = {"u1": 0.9, "u2": 0.4, "u3": 0.7, "u4": 0.5}
TEXTS = {"u1": "ab c", "u2": "aab", "u3": "cab", "u4": "b"}
PHONES = {
    "token_list": ["<blank>", "<unk>", "t#", "I2", ";", "<sos/eos>"],
    "token_type": "phn",
    "g2p": None,
}
UPSTREAM = {
    "extractor": "logmel",
    "extractor_conf": {"dim": 12, "mels": 16},
    "dim": 8,
    "layers": 1,
    "heads": 2,
    "ff_dim": 12,
    "pos_kernel": 4,
    "pos_groups": 2,
}


def build(
    folder: Path, frontend: dict, input_layer: str = "linear", **changes
) -> list[str]:
    """Save an untrained model as ESPnet's trainer would; returns its options."""
    torch.manual_seed(3)
    config = {
        **frontend,
        "token_list": TOKENS,
        "token_type": "char",
        "encoder": "transformer",
        "encoder_conf": {
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 12,
            "num_blocks": 1,
            "input_layer": input_layer,
        },
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 2, "linear_units": 12, "num_blocks": 1},
        "normalize": None,
        "output_dir": str(folder),
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    args = ASRTask.get_parser().parse_args(["--config", str(folder / "train.yaml")])
    model = ASRTask.build_model(args)
    torch.save(model.state_dict(), folder / "model.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    return [
        f"--asr_train_config={folder}/config.yaml",
        f"--asr_model_file={folder}/model.pth",
    ]


def ofa(lam) -> dict:
    conf = {"upstream": UPSTREAM, "lam": lam}
    return {"frontend": "ofa", "frontend_conf": conf}


def stochastic(upsample: bool = False) -> dict:
    upstream = {
        **UPSTREAM,
        "upsampler": upsample,
        "pos_kernel": 0,
        "compressor": "squeeze",
        "key_pool": [1, 2],
    }
    upstream["compressor_conf"] = {"factor": [1, 2, 4], "kernel": 4, "groups": 2}
    conf = {"upstream": upstream, "squeeze": [2, 1, 1], "squeeze_train": "uniform"}
    conf["upsample"] = upsample
    return {"frontend": "ofa", "frontend_conf": conf}


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """Models and a test set; every decoding runs in this process."""
    root = tmp_path_factory.mktemp("inference")
    rng = np.random.default_rng(0)
    data = root / "data" / "test"
    data.mkdir(parents=True)
    scp, text = [], []
    for key, seconds in SECONDS.items():
        wave = 0.1 * rng.standard_normal(int(16000 * seconds))
        soundfile.write(data / f"{key}.wav", wave, 16000)
        scp.append(f"{key} {data / key}.wav\n")
        text.append(f"{key} {TEXTS[key]}\n")
    (data / "wav.scp").write_text("".join(scp))
    (data / "text").write_text("".join(text))
    torch.set_num_threads(1)
    return SimpleNamespace(
        root=root,
        data=data,
        common=["--num_workers=0", "--log_level=WARNING"],
        fixed=build(root / "fixed", ofa(0.3)),
        adaptive=build(root / "adaptive", ofa("adaptive")),
        phones=build(root / "phones", ofa(0.3), **PHONES),
        stochastic=build(root / "stochastic", stochastic()),
        upsampled=build(root / "upsampled", stochastic(upsample=True)),
        plain=build(root / "plain", {"frontend_conf": {"n_mels": 16}}, "conv2d"),
    )


def run(space, model, out, *options) -> Path:
    folder = space.root / out
    asr_inference.main(
        [*model, *space.common, f"--output_dir={folder}", *map(str, options)]
    )
    return folder


def greedy_options(space) -> list[str]:
    return ["--search=greedy", f"--test_set=test:{space.data}"]


@pytest.fixture(scope="module")
def grid(space):
    options = ["--lam", "0", "1", "own", *greedy_options(space)]
    return run(space, space.fixed, "grid", *options)


def test_stats_are_measured(space, grid):
    for label, lam in (("0", 0.0), ("1", 1.0), ("own", 0.3)):
        stats = load_stats(grid / f"lam{label}" / "test")
        assert (stats.lam, stats.adaptive) == (lam, False)
        assert stats.utterances == 4
        assert stats.audio_seconds == pytest.approx(2.5)
        # (samples - 400) // 320 + 1 of 0.9, 0.4, 0.7 and 0.5 s
        assert stats.frames is not None
        assert stats.frames == 44 + 19 + 34 + 24
        assert stats.period_ms == pytest.approx(20 * stats.frames / stats.units)
        assert stats.encoder_seconds > 0
        assert 0 < stats.encoder_rtf < stats.rtf
        assert stats.macs_seconds == pytest.approx(2.5)
        assert stats.setup["search"] == "greedy"
        assert "1 threads" in str(stats.setup["device"])
        assert set(stats.parameters) >= {"frontend", "encoder", "decoder", "ctc"}
    slow, fast = (load_stats(grid / f"lam{lam}" / "test") for lam in "01")
    assert slow.period_ms == 20.0
    assert fast.period_ms > 60
    assert fast.macs < slow.macs
    # 4 units in 0.4 s at lambda 1 and `aab` needs 4: nothing but a count of 0 to 4
    assert slow.infeasible == 0


def test_infeasible_utterances_are_counted(space, grid, tmp_path):
    long = tmp_path / "long"
    long.mkdir()
    (long / "wav.scp").write_text((space.data / "wav.scp").read_text())
    texts = {**TEXTS, "u2": "a" * 10, "u4": "a" * 13}  # 19 and 25 units wanted
    (long / "text").write_text("".join(f"{k} {t}\n" for k, t in texts.items()))
    options = ["--search=greedy", f"--test_set=long:{long}", "--lam=0"]
    run(space, space.fixed, "long", *options)  # 19 and 24 units at hand
    assert load_stats(space.root / "long" / "lam0" / "long").infeasible == 1


@pytest.mark.parametrize("size", [1, 3])
def test_seconds_are_of_what_was_decoded(space, clock, monkeypatch, tmp_path, size):
    """The encoder takes as long as the audio, the search twice as long again."""
    encode, search = ESPnetASRModel.encode, decoding.Decoder.search

    def slow_encode(self, speech, lengths):
        clock.time += int(lengths.sum()) / 16000
        return encode(self, speech, lengths)

    def slow_search(self, waves):
        clock.time += 2 * sum(map(len, waves)) / 16000
        return search(self, waves)

    monkeypatch.setattr(ESPnetASRModel, "encode", slow_encode)
    monkeypatch.setattr(decoding.Decoder, "search", slow_search)
    options = ["--lam=1", f"--batch_size={size}", *greedy_options(space)]
    stats = load_stats(run(space, space.fixed, tmp_path, *options) / "lam1" / "test")
    assert stats.encoder_seconds == pytest.approx(2.5)  # warm-up does not count
    assert stats.decode_seconds == pytest.approx(5.0)
    assert (stats.encoder_rtf, stats.rtf) == pytest.approx((1.0, 3.0))


@pytest.mark.parametrize(
    ("tokens", "limit", "capped"), [(2, 3, False), (3, 3, True), (3, None, False)]
)
def test_capped_is_what_has_all_the_tokens_allowed(tokens, limit, capped):
    hyp = SimpleNamespace(yseq=[6, *[3] * tokens, 6], score=-1.0)
    decoder: Any = SimpleNamespace(
        speech2text=lambda wave: [("a", ["a"], [3], hyp)],
        limit=None if limit is None else SimpleNamespace(limit=limit),
        meter=SimpleNamespace(last_lengths=torch.tensor([9])),
        _join=lambda token, text: text,
    )
    found = decoding.Decoder._beam(decoder, torch.zeros(400))
    assert (found.capped, found.units) == (capped, 9)


def test_greedy_is_the_best_path(space, grid):
    files = [option.split("=")[1] for option in space.fixed]
    model: Any = ASRTask.build_model_from_file(*files)[0].eval()
    for lam in ("0", "1"):
        espnet_ofa.set_lam(model, float(lam))
        found = read_text(grid / f"lam{lam}" / "test" / "token_int")
        assert list(found) == list(SECONDS)  # in the order of the test set
        for key in SECONDS:
            wave = soundfile.read(space.data / f"{key}.wav", dtype="float32")[0]
            speech = torch.from_numpy(wave)[None]
            with torch.no_grad():
                out, units = model.encode(speech, torch.tensor([len(wave)]))
                best = model.ctc.argmax(out)[0].tolist()
            path = [b for i, b in enumerate(best) if i == 0 or b != best[i - 1]]
            wanted = [b for b in path if b not in (0, len(TOKENS) - 1)]
            assert found[key] == " ".join(map(str, wanted))
    texts = read_text(grid / "lam0" / "test" / "text")
    tokens = read_text(grid / "lam0" / "test" / "token")
    for key in SECONDS:
        spelled = "".join(tokens[key].split()).replace("<space>", " ")
        assert texts[key] == " ".join(spelled.split())


def test_batches_give_the_same(space, grid):
    options = ["--lam", "1", "--batch_size=3", *greedy_options(space)]
    batched = run(space, space.fixed, "batched", *options) / "lam1" / "test"
    alone = grid / "lam1" / "test"
    for name in ("text", "token_int"):
        assert (batched / name).read_text() == (alone / name).read_text()
    assert load_stats(batched).units == load_stats(alone).units
    assert load_stats(batched).infeasible == load_stats(alone).infeasible


BEAM = ["--beam_size=2", "--ctc_weight=0.3", "--log_level=ERROR"]


def test_beam_search_with_two_sets(space):
    sets = [f"--test_set=a:{space.data}", f"--test_set=b:{space.data}"]
    options = ["--lam=0.5", "--maxlenratio=-3", *BEAM, *sets]
    out = run(space, space.fixed, "beam", *options) / "lam0.5"
    assert (out / "a" / "text").read_text() == (out / "b" / "text").read_text()
    stats = load_stats(out / "a")
    assert stats.setup["beam_size"] == 2
    assert stats.decode_seconds > 0
    lengths = [len(t.split()) for t in read_text(out / "a" / "token").values()]
    assert max(lengths) == 3
    assert stats.capped == lengths.count(3) > 0


def test_constant_maximum_beyond_the_units(space):
    """Far more tokens allowed than units, where ESPnet's own search fails."""
    test_set = f"--test_set=a:{space.data}"
    for weight in ("0.3", "0.0"):
        options = ["--lam=1", "--maxlenratio=-60", test_set, *BEAM]
        options.append(f"--ctc_weight={weight}")
        out = run(space, space.fixed, f"long{weight}", *options) / "lam1" / "a"
        tokens = [t.split() for t in read_text(out / "token").values()]
        stats = load_stats(out)
        assert "<sos/eos>" not in sum(tokens, [])
        if weight == "0.3":  # CTC has no path for more tokens than units
            assert stats.units < 60
            assert sum(map(len, tokens)) <= stats.units
        else:
            assert stats.capped == [len(t) for t in tokens].count(60)


def test_end_detection_as_in_espnet():
    espnet = sys.modules[stock.BeamSearch.__module__]  # moved in 202611
    rng = np.random.default_rng(1)
    answers = []
    for _ in range(300):
        lengths, scores = rng.integers(2, 6, 9), -30 * rng.random(9)
        ended = [
            {"yseq": [0] * int(n), "score": float(s) - 9 * int(n > 2)}
            for n, s in zip(lengths, scores, strict=True)
        ]
        ours = [SimpleNamespace(**hyp) for hyp in ended]
        step = int(rng.integers(4, 7))
        answers.append(espnet.end_detect(ended, step))
        assert end_detected(ours, step) == answers[-1]
    assert {True, False} == set(answers)
    assert not end_detected([], 5)


def length_limit(maximum, units, scorer="ctc"):
    """On a search that ends what runs at its own last step, and nothing before."""

    def post_process(i, maxlen, minlen, maxlenratio, running, ended):
        if i + 1 < maxlen:
            return running
        ended.extend(running)
        return []

    search = SimpleNamespace(
        post_process=post_process, full_scorers={}, part_scorers={scorer: None}
    )
    lengths = None if units is None else torch.tensor([units])
    meter: Any = SimpleNamespace(last_lengths=lengths)
    return LengthLimit(search, maximum, meter)


@pytest.mark.parametrize(
    ("maximum", "units", "scorer", "steps"),
    [
        (5, 3, "ctc", 3),
        (5, 9, "ctc", 5),
        (5, 3, "decoder", 5),
        (5, 0, "ctc", 1),
        (5, None, "ctc", 5),
    ],
)
def test_steps_are_bounded_by_tokens_and_with_ctc_by_units(
    maximum, units, scorer, steps
):
    limit, ended = length_limit(maximum, units, scorer), []
    for i in range(steps):
        assert ended == []
        running = limit(i, 900, 0, -900.0, ["running"], ended)
        assert bool(running) == (i + 1 < steps)
    assert ended == ["running"] and limit.limit == steps


def test_what_goes_on_when_the_rest_is_hopeless_has_not_ended():
    ended = [SimpleNamespace(yseq=[6] * n, score=s) for n, s in ((2, 0.0), (7, -11.0))]
    ended += [SimpleNamespace(yseq=[6] * n, score=-11.0) for n in (8, 9)]
    before, limit = [*ended], length_limit(90, 90)
    assert limit(8, 900, 0, -900.0, ["running"], ended) == ["running"]
    assert limit(9, 900, 0, -900.0, ["running"], ended) == []
    assert ended == before


def test_decoding_stops_when_nothing_better_can_come(space):
    """Steps taken, with a maximum that is out of reach: fewer than allowed."""
    steps = []

    class Counting(LengthLimit):
        def __call__(self, i, *args):
            steps.append((i, self.limit))
            return super().__call__(i, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "LengthLimit", Counting)
        options = ["--lam=0", "--maxlenratio=-900", "--ctc_weight=0.9", *BEAM[:1]]
        options += [f"--test_set=a:{space.data}", "--log_level=ERROR"]
        run(space, space.fixed, "stops", *options)
    assert max(i for i, _ in steps) + 1 < max(limit for _, limit in steps)


def test_own_lambda_of_an_adaptive_model(space):
    options = ["--lam", "0", "own", *greedy_options(space)]
    out = run(space, space.adaptive, "adaptive_grid", *options)
    stats = load_stats(out / "lamown" / "test")
    assert stats.adaptive
    assert stats.lam == pytest.approx(0.5, abs=0.01)
    assert 20 < stats.period_ms < 60
    assert not load_stats(out / "lam0" / "test").adaptive


def test_a_model_without_lambda(space):
    out = run(space, space.plain, "plain_dec", *greedy_options(space))
    stats = load_stats(out / "lamown" / "test")
    assert (stats.lam, stats.adaptive, stats.frames) == (None, False, None)
    assert stats.period_ms == pytest.approx(32, rel=0.15)  # 128 samples a hop, 4x
    with pytest.raises(ValueError, match="no part that compresses"):
        run(space, space.plain, "plain_dec", "--lam=1", *greedy_options(space))


def test_without_our_options_it_is_espnet(space):
    data = f"--data_path_and_name_and_type={space.data}/wav.scp,speech,sound"
    stock = run(space, space.fixed, "stock", data, *BEAM) / "1best_recog"
    assert {p.name for p in stock.iterdir()} == {"text", "token", "token_int", "score"}
    ours = run(space, space.fixed, "ours", f"--test_set=t:{space.data}", *BEAM)
    ours = ours / "lamown" / "t"
    for name in ("text", "token_int"):
        assert read_text(ours / name) == read_text(stock / name)
    named = run(
        space, space.fixed, "named", data, *BEAM, "--lam=0.3", "--maxlenratio=-90"
    )
    named = named / "lam0.3" / "test"  # named after the folder of wav.scp
    assert read_text(named / "token_int") == read_text(ours / "token_int")


def test_what_is_decoded_is_not_decoded_again(space, grid, caplog):
    marker = grid / "lam0" / "test" / "stats.json"
    before = marker.stat().st_mtime_ns
    options = ["--lam=0", *greedy_options(space)]
    with caplog.at_level(logging.INFO):
        run(space, space.fixed, "grid", *options)
    assert "remove it to decode again" in caplog.text
    assert marker.stat().st_mtime_ns == before
    for other in ("--batch_size=2", "--minlenratio=0.1"):  # another setup
        run(space, space.fixed, "grid", *options, other)
        assert marker.stat().st_mtime_ns > before
        before = marker.stat().st_mtime_ns


def test_results_tell_their_model(space, grid, tmp_path):
    """By content: an older file may take the place of the one that was decoded with."""
    config, model = space.fixed
    path = Path(model.partition("=")[2])
    moved = tmp_path / "other.pth"
    shutil.copy2(path, moved)
    options = ["--lam=0", *greedy_options(space)]
    out = run(space, [config, f"--asr_model_file={moved}"], "moved", *options)
    first = load_stats(out / "lam0" / "test")
    assert first.model_sha256 == model_checksum(torch.load(path, weights_only=True))
    assert first.model_sha256 == load_stats(grid / "lam0" / "test").model_sha256
    state = torch.load(path, weights_only=True)
    state["ctc.ctc_lo.bias"] += 1
    torch.save(state, moved)
    os.utime(moved, (0, 0))
    run(space, [config, f"--asr_model_file={moved}"], "moved", *options)
    assert load_stats(out / "lam0" / "test").model_sha256 == model_checksum(state)


def test_report_of_a_real_grid(space, grid, capsys):
    report.main(["--expdir", str(space.root), "--decode_dirs", f"ctc={grid}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("tradeoff_test.png")
    assert len(lines) == 2 + 3 + 1
    periods = [float(line.split("|")[3]) for line in lines[2:-1]]
    assert periods[0] == 20.0 < periods[1] < periods[2]


def test_bad_options(space, tmp_path):
    beam = ["--lam=0.5", f"--test_set=test:{space.data}"]
    with pytest.raises(ValueError, match="negative number, e.g. --maxlenratio -200"):
        run(space, space.fixed, "bad", *beam)
    with pytest.raises(ValueError, match="greedy only"):
        run(space, space.fixed, "bad", *beam, "--batch_size=2", "--maxlenratio=-9")
    with pytest.raises(ValueError, match="--ngpu must be 0 or 1"):
        run(space, space.fixed, "bad", *beam, "--ngpu=2")
    with pytest.raises(ValueError, match="--streaming does not go"):
        run(space, space.fixed, "bad", *beam, "--streaming=true")
    with pytest.raises(ValueError, match="one of --test_set"):
        run(space, space.fixed, "bad", "--search=greedy")
    with pytest.raises(ValueError, match="NAME:DIR"):
        run(space, space.fixed, "bad", "--search=greedy", "--test_set=test")
    with pytest.raises(FileNotFoundError, match="wav.scp: no such file; nope needs"):
        run(space, space.fixed, "bad", "--search=greedy", f"--test_set=nope:{tmp_path}")
    for lam in ("3", "fast"):
        with pytest.raises(SystemExit):
            run(space, space.fixed, "bad", *beam, f"--lam={lam}")
    with pytest.raises(SystemExit):
        run(space, space.fixed, "bad")


def test_weights_that_do_not_fit_are_named(space, tmp_path):
    path = Path(space.fixed[1].partition("=")[2])
    state = torch.load(path, weights_only=True)
    state["extra"] = state.pop("ctc.ctc_lo.bias")
    torch.save(state, tmp_path / "model.pth")
    model = [space.fixed[0], f"--asr_model_file={tmp_path}/model.pth"]
    with pytest.raises(ValueError, match="missing: ctc.ctc_lo.bias.*unexpected: extra"):
        run(space, model, "misfit", *greedy_options(space), "--lam=0")


def test_lost_reference_is_named(space, tmp_path):
    (tmp_path / "wav.scp").write_text((space.data / "wav.scp").read_text())
    (tmp_path / "text").write_text("u1 a\n")
    options = ["--search=greedy", f"--test_set=lost:{tmp_path}", "--lam=0"]
    with pytest.raises(ValueError, match="text: no reference for u2"):
        run(space, space.fixed, "lost", *options)
    assert not (space.root / "lost" / "lam0" / "lost").exists()
    (tmp_path / "wav.scp").write_text("")
    with pytest.raises(ValueError, match="lists no utterance"):
        run(space, space.fixed, "lost", *options)


def test_too_short_utterances_do_not_stop_a_run(space, tmp_path):
    """ESPnet's own encoders refuse audio below their receptive field."""
    soundfile.write(tmp_path / "u0.wav", np.full(700, 0.1), 16000)
    scp = f"u0 {tmp_path}/u0.wav\n" + (space.data / "wav.scp").read_text()
    (tmp_path / "wav.scp").write_text(scp)
    (tmp_path / "text").write_text("u0 a\n" + (space.data / "text").read_text())
    for size in (1, 3):
        options = [
            "--search=greedy",
            f"--batch_size={size}",
            f"--test_set=s:{tmp_path}",
        ]
        options.append("--log_level=ERROR")
        out = run(space, space.plain, f"short{size}", *options) / "lamown" / "s"
        stats = load_stats(out)
        assert stats.utterances == 5
        assert stats.too_short == (1 if size == 1 else 0)  # padding made it longer
        assert stats.infeasible in (stats.too_short, 1)
        assert 2.4 < stats.macs_seconds < stats.audio_seconds  # not of that one
        assert list(read_text(out / "text")) == ["u0", *SECONDS]
    assert read_text(space.root / "short1" / "lamown" / "s" / "text")["u0"] == ""


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_phones(space, search, tmp_path):
    data = tmp_path / "phones"
    data.mkdir()
    (data / "wav.scp").write_text((space.data / "wav.scp").read_text())
    (data / "text").write_text("".join(f"{key} t# I2 t# ;\n" for key in SECONDS))
    options = [f"--search={search}", f"--test_set=test:{data}", "--lam", 0]
    options += ["--beam_size=2", "--maxlenratio=-4"]
    folder = run(space, space.phones, f"phones_{search}", *options)
    found = read_text(folder / "lam0/test/text")
    tokens = read_text(folder / "lam0/test/token")
    assert found == tokens and any(len(text.split()) > 1 for text in found.values())
    stats = load_stats(folder / "lam0/test")
    assert stats.phones and stats.infeasible == 0
    (row,) = report.collect_rows("phones", folder)
    assert row.as_dict()["phones"] == 16 and row.as_dict()["per"] == row.wer
    table = lambda_table([row])
    assert "PER (%)" in table and "WER" not in table and "CER" not in table
    (words,) = report.collect_rows("words", run(space, space.fixed, "one", *options))
    with pytest.raises(ValueError, match="'per': 'phones'"):
        lambda_table([row, words])


@pytest.mark.parametrize("kind", ["stochastic", "upsampled"])
def test_squeezes_of_a_stochastic_model(space, kind):
    model = getattr(space, kind)
    options = ["--squeeze", "1", "4,1,2", "own", *greedy_options(space)]
    folder = run(space, model, f"squeezes_{kind}", *options)
    frames = [44, 19, 34, 24]
    for label, (s, k) in {"1,1,1": (1, 1), "4,1,2": (4, 2), "own": (2, 1)}.items():
        stats = load_stats(folder / f"lamown-squeeze{label}" / "test")
        assert (stats.lam, stats.squeeze) == (None, f"{s},1,{k}")
        # The Transformer's, also where CTC has frames of 20 ms again.
        assert stats.units == sum(-(-n // s) for n in frames)
        assert kind == "stochastic" or stats.infeasible == 0
    rows = report.collect_rows("stochastic", folder)
    assert [row.stats.squeeze for row in rows] == ["1,1,1", "2,1,1", "4,1,2"]
    table = lambda_table(rows)
    assert "squeeze 4,1,2" in table and f"{20 * 121 / 31:.1f}" in table
    again = run(space, model, f"own_{kind}", *greedy_options(space))
    assert load_stats(again / "lamown" / "test").squeeze == "2,1,1"


@pytest.mark.parametrize(
    ("model", "squeeze", "message"),
    [
        ("stochastic", "3", "S in [1, 2, 4], not 3"),
        ("fixed", "2,1,1", "has no squeeze to choose"),
    ],
)
def test_squeezes_that_cannot_be(space, model, squeeze, message):
    options = ["--squeeze", squeeze, *greedy_options(space)]
    with pytest.raises(ValueError, match=re.escape(message)):
        run(space, getattr(space, model), "refused", *options)
    with pytest.raises(SystemExit):
        run(space, space.stochastic, "refused", "--squeeze", "0,1")


def test_audio_at_another_rate_than_the_models_is_refused(space, tmp_path):
    path = tmp_path / "slow.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    (tmp_path / "wav.scp").write_text(f"u1 {path}\n")
    with pytest.raises(ValueError, match=r"slow\.wav: expected 16 kHz, found 8000"):
        run(
            space, space.fixed, "slow", f"--test_set=test:{tmp_path}", "--search=greedy"
        )


def align(space, out, texts, *options):
    """Segments that a CTC model with random weights finds for these texts."""
    data = out / "data"
    speakers = {key: key for key in texts}
    wav = {key: str(space.data / f"{key}.wav") for key in texts}
    DataDir(wav, speakers, texts).write(data)
    cmd = [*space.fixed, f"--data_dirs={data}", f"--output_dir={out}", *options]
    ssl_align.main(cmd)
    return read_alignments(out, {key: SECONDS[key] for key in texts})


@pytest.mark.parametrize("lam", [0, 1])
def test_alignments_tile_the_audio_at_any_lambda(space, tmp_path, lam):
    made = align(space, tmp_path, TEXTS, "--lam", str(lam))
    for key, segments in made.items():
        labels = ["<space>" if c == " " else c for c in TEXTS[key]]
        assert [p for p in segments.phones or () if p != "sil"] == labels
        assert segments.ends[-1] == SECONDS[key]
        assert (np.diff(segments.ends, prepend=0) > 0).all()
        if lam == 0:  # where a frame begins
            frames = 50 * segments.ends[:-1]
            np.testing.assert_allclose(frames, np.round(frames), atol=1e-3)


def test_texts_too_long_to_align_are_named(space, tmp_path):
    texts = {**TEXTS, "u2": "abc" * 9, "u4": "aaa" * 5}
    with pytest.raises(DataError) as error:
        align(space, tmp_path, texts, "--lam", "0")
    units = {key: int((16000 * s - 400) // 320 + 1) for key, s in SECONDS.items()}
    assert str(error.value).count("labels need from 1") == 2
    assert f"u2: 27 labels need from 1 to {units['u2']} units" in str(error.value)
    assert "u4: 15 labels" in str(error.value) and "they need 29" in str(error.value)
    assert not (tmp_path / "boundaries").exists()
