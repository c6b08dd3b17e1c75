"""What the stages depend on: a change in it is noticed, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1"

# In the place of Slurm or run.pl: writes what the decoding that it is given would.
DECODE = """#!/usr/bin/env bash
set -eu
while [ "$1" != --output_dir ]; do shift; done
out=$2
while [ "$1" != --lam ]; do shift; done
for lam in ${2} ${3:-}; do
    [[ ${lam} != --* ]] || break
    mkdir -p "${out}/lam${lam}/test"
    echo x >>"${out}/lam${lam}/test/text"
done
exit "${STATUS:-0}"
"""


def test_changed_decoding_starts_empty(recipe, tmp_path):
    write, run = recipe
    write("decode", DECODE, 0o755)
    for name in ("raw/test/wav.scp", "exp/model.pth", "exp/config.yaml"):
        write(name, "x\n")
    out = tmp_path / "exp/decode"
    options = dict(
        decode_cmd="./decode", asr_raw="raw", test_sets="test", inference_tag="decode",
        inference_args="", inference_squeezes="", inference_nj="1", inference_gpu="0",
        num_threads="1", gpu_inference="false",
    )  # fmt: skip

    def decode(lams, **env):
        script = f"decode exp model.pth conf.yaml '{lams}'"
        return run(script, **{**options, **env})

    def found():
        return {p.name: (p / "test/text").read_text() for p in out.glob("lam*")}

    assert decode("0 1", STATUS="1").returncode == 1
    assert decode("0 1").returncode == 0
    assert found() == {"lam0": "x\nx\n", "lam1": "x\nx\n"}  # went on
    write("exp/decode/logdir/output.1/lam0/test/text", "of another number of jobs")
    assert decode("0").returncode == 0
    assert found() == {"lam0": "x\n"}
    assert not (out / "logdir").exists()
    write("exp/config.yaml", "trained again\n")
    assert decode("0", STATUS="1").returncode == 1
    assert decode("0", inference_args="--nbest 2").returncode == 0
    assert found() == {"lam0": "x\n"}
    refused = decode("0", inference_squeezes="1 2", STATUS="1")
    assert "now: lams=0 --squeeze 1 2" in refused.stderr


@pytest.mark.parametrize("segments", ["codes", "none"])
def test_pretraining_depends_on_its_segments(recipe, tmp_path, segments):
    write, run = recipe
    for which in ("train", "valid"):
        write(f"targets/{which}/targets", "a 1\n")
        write(f"targets/{which}/boundaries", "a 1\n")
        write(f"stats/{which}/speech_shape", "a 1\n")
    write("stats/.done", "")
    options = dict(
        ssl_stats_dir="stats", ssl_targets_dir="targets", ssl_exp="exp",
        ssl_dump="raw/train", valid_dump="raw/valid", valid_set="valid",
        ssl_config="conf.yaml", ssl_args="", ssl_model="x", ssl_num_codes="2",
        train_cmd="true", cuda_cmd="true", ngpu="0", num_nodes="1", nj="1",
        num_threads="1", upstream="exp/upstream", ssl_segments=segments,
    )  # fmt: skip
    assert run("stage_8", **options).returncode == 0
    assert "finished before" in run("stage_8", **options).stdout
    write("targets/valid/boundaries", "a 2\n")
    again = run("stage_8", **options)
    assert again.returncode == (segments != "none")
    assert ("now: targets/valid/boundaries" in again.stderr) == (segments != "none")


@pytest.mark.parametrize("name", ["a.ctm", "grids/a/a.TextGrid", "own/boundaries"])
def test_targets_depend_on_alignments(recipe, name):
    write, run = recipe
    for which in ("train", "valid"):
        write(f"raw/{which}/wav.scp", "a x\n")
    write(name, "one")
    options = dict(
        ssl_targets_dir="targets", ssl_dump="raw/train", valid_dump="raw/valid",
        ssl_targets_args="", ssl_num_codes="2", ssl_segments=name.split("/")[0],
        train_cmd="true", nj="1",
    )  # fmt: skip
    assert run("stage_6", **options).returncode == 0
    assert "finished before" in run("stage_6", **options).stdout
    write(name, "another")
    assert "made from something else" in run("stage_6", **options).stdout
    assert "finished before" in run("stage_6", **options).stdout


@pytest.mark.parametrize("segments", ["codes", "none"])
def test_boundaries_are_scored_where_true_ones_are_known(recipe, segments):
    write, run = recipe
    options = dict(
        ssl_exp="exp", valid_dump="raw/valid", valid_set="valid", nj="1",
        ssl_targets_dir="targets", ssl_segments=segments, upstream="exp/upstream",
        train_cmd="echo",
    )  # fmt: skip
    assert run("score_boundaries", **options).stdout == ""
    write("raw/valid/boundaries", "a 0.1 0.2\n")
    write("exp/boundaries.md", "the table")
    done = run("score_boundaries", **options).stdout
    assert "ssl_boundaries --data_dir raw/valid" in done and "the table" in done
    assert ("guidance=targets/valid" in done) == (segments != "none")


@pytest.mark.parametrize("cached", ["true", "false"])
def test_distillation_depends_on_its_teacher(recipe, tmp_path, cached):
    write, run = recipe
    for which in ("train", "valid"):
        write(f"targets/{which}/targets", "a 1\n")
        write(f"stats/{which}/speech_shape", "a 1\n")
        write(f"cache/{which}/teacher.json", "{}")
    write("stats/.done", "")
    write("hubert/model.safetensors", "weights")
    options = dict(
        ssl_stats_dir="stats", ssl_targets_dir="targets", ssl_exp="exp",
        ssl_dump="raw/train", valid_dump="raw/valid", valid_set="valid",
        ssl_config="conf.yaml", ssl_args="", ssl_model="x", ssl_num_codes="2",
        train_cmd="true", cuda_cmd="echo", ngpu="0", num_nodes="1", nj="1",
        num_threads="1", upstream="exp/upstream", ssl_segments="none",
        ssl_teacher="hubert", ssl_teacher_cache=cached, ssl_teacher_dir="cache",
    )  # fmt: skip
    if cached == "true":
        assert (
            "cache/.done does not exist; run stage 6"
            in run("stage_8", **options).stderr
        )
        write("cache/.done", "")
    trained = run("stage_8", **options)
    assert trained.returncode == 0 and "--teacher hubert" in trained.stdout
    fields = [f"cache/{which}/teacher.scp,teacher,text" for which in ("train", "valid")]
    assert all((field in trained.stdout) == (cached == "true") for field in fields)
    assert "finished before" in run("stage_8", **options).stdout
    write("hubert/model.safetensors", "others")
    again = run("stage_8", **options)
    assert again.returncode == 1
    assert "now: hubert/model.safetensors" in again.stderr


def test_data_depend_on_code_and_corpus(recipe, tmp_path):
    write, run = recipe
    write("local/data.sh", "#!/bin/sh\necho made of ${MINE} >>data/log\n", 0o755)
    write("db.sh", "MINE=${MINE:-}\nOTHER=${OTHER:-}\n")
    write("data/train/wav.scp", "x\n")
    write("checkout/local/synth/voices.py", "VOICES = 1\n")
    write("template/local/train_valid_test.sh", "true\n")
    write("elsewhere/a.wav", "")
    options = dict(
        OFA_ROOT="checkout", OFA_TEMPLATE="template",
        datadir="data", train_set="train", data_dir="",
        valid_set="train", test_sets="", ssl_train_set="", ssl_extra_dirs="",
        download_dir="downloads", nj="1", local_data_opts="", MINE="/here",
        skip_bad="false",
    )  # fmt: skip

    def times(**env):
        done = run("stage_1", **{**options, **env})
        assert done.returncode == 0, done.stderr
        return (tmp_path / "data/log").read_text().count("made")

    assert times() == times() == times(OTHER="/unused") == 1
    assert times(MINE="/there") == times(MINE="/there") == 2
    assert times(MINE="/there", data_dir="elsewhere") == 3
    write("checkout/local/synth/voices.py", "VOICES = 2\n")
    assert times(MINE="/there", data_dir="elsewhere") == 4
    write("template/local/train_valid_test.sh", "false\n")
    assert times(MINE="/there", data_dir="elsewhere") == 5
    for name in ("data_dir", "ssl_extra_dirs"):
        done = run("stage_1", **{**options, name: "nowhere"})
        assert f"--{name} nowhere: no such folder" in done.stderr
    # A copy that was not complete.
    for where in ({"data_dir": "corpus"}, {"MINE": "corpus"}):
        write("corpus/a/1.flac", "first ha")
        before = times(**where)
        assert times(**where) == before
        write("corpus/a/1.flac", "first half")
        assert times(**where) == before + 1
        write(f"corpus/a/of {len(where)}{[*where][0]}.flac", "second")
        assert times(**where) == times(**where) == before + 2
    assert times(MINE="corpus", skip_bad="true") == before + 3


def test_systems_that_are_left_out_are_named(recipe, tmp_path):
    """Neither what is half trained nor what started from another model."""
    write, run = recipe
    for name in ("ctc", "s2s", "adaptive", "joint"):
        write(f"exp/{name}/.done", "")
        write(f"exp/{name}/.from", "conf.yaml 1 2\n")
        write(f"exp/{name}/valid.pth", "x\n")
    options = dict(
        asr_exp="exp/ctc", s2s_exp="exp/s2s", adaptive_configs="conf/adaptive.yaml",
        inference_asr_model="valid.pth", inference_s2s_model="valid.pth",
        inference_config="c", s2s_inference_config="c", inference_lams="0 1",
        s2s_inference_lams="0", expdir="exp", s2s_adaptive_configs="conf/joint.yaml",
    )  # fmt: skip
    names = 'config_name() { basename "$1" .yaml; }\n'
    names += 'adaptive_exp() { echo "exp/$(config_name "$1")"; }'

    def found():
        done = run(f"{names}\nsystems", **options)
        assert done.returncode == 0, done.stderr
        return [line.split("\t")[0] for line in done.stdout.splitlines()], done.stderr

    everything = ["ctc", "s2s", "adaptive", "joint"]
    assert found() == (everything, "")
    for model, start in (("s2s", "ctc"), ("joint", "s2s")):
        begin = f"to_train exp/{model} exp/{start}/valid.pth"
        assert run(begin, overwrite="true").returncode == 0
        assert found()[0] == [name for name in everything if name != model]
        assert f"{model} is left out: exp/{model} is not finished" in found()[1]
        write(f"exp/{model}/.done", "")
        assert found() == (everything, "")
    write("exp/s2s/valid.pth", "trained again\n")
    assert found()[0] == ["ctc", "s2s", "adaptive"]
    assert "exp/s2s/valid.pth is no longer what exp/joint started from" in found()[1]
    write("exp/ctc/valid.pth", "trained again\n")
    assert found()[0] == ["ctc", "adaptive"]
    assert "exp/ctc/valid.pth is no longer what exp/s2s started from" in found()[1]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ctc", ["valid.pth", "config.yaml", "train.log", "dec/lam0/test/stats.json"]),
        ("ssl", ["upstream/model.safetensors", "train.log"]),
    ],
)
def test_a_package_depends_on_all_that_is_in_it(recipe, name, files):
    write, run = recipe
    files = [f"exp/{file}" for file in files] + ["bpe.model"] * (name == "ctc")
    for file in files:
        write(file, "x\n")
    options = dict(
        hf_license="mit", hf_datasets="", lang="en", pack_onnx="auto",
        bpemodel="bpe.model", name=name,
    )  # fmt: skip
    script = """
        mapfile -t inputs < <(pack_inputs "${name}" exp valid.pth)
        if to_do exp/packed "${inputs[@]}"; then finish exp/packed; fi
    """
    assert run(script, **options).returncode == 0
    assert "finished before" in run(script, **options).stdout
    for file in files:
        write(file, "y\n")
        again = run(script, **options)
        assert f"now: {file}" in again.stderr, again.stderr
        assert "finished before" in run(script, **options).stdout


# In the place of Python: what it is asked to do.
TOOL = """tool() { shift; echo "asked: $*"; }"""


@pytest.mark.parametrize("name", ["", "Mine 1"])
def test_an_upstream_is_packed_without_recognisers(recipe, name):
    write, run = recipe
    options = dict(
        expdir="exp", asr_exp="exp/ctc", s2s_exp="exp/s2s", ssl_exp="exp/ssl",
        adaptive_configs="", s2s_adaptive_configs="", pretrained_upstream="",
        inference_asr_model="", inference_s2s_model="", inference_config="",
        s2s_inference_config="", inference_lams="", s2s_inference_lams="",
        hf_license="other", hf_license_name=name, hf_datasets="", lang="en",
        pack_onnx="auto",
    )  # fmt: skip
    assert "no trained model in exp" in run(f"{TOOL}\nstage_14", **options).stderr
    write("exp/ssl/upstream/rate.json", "{}")
    write("exp/ssl/train.log", "")
    done = run(f"{TOOL}\nstage_14", **options)
    assert done.returncode == 0, done.stderr
    (asked,) = [line for line in done.stdout.splitlines() if "asked: " in line]
    assert "publish pack_upstream --upstream_dir exp/ssl/upstream" in asked
    assert ("--license other --license_name Mine 1 --datasets" in asked) == bool(name)
    changed = run(f"{TOOL}\nstage_14", **{**options, "hf_license_name": "Yours"})
    assert "now: license=other, Yours" in changed.stderr
    done = run("hf_repo=a/b pack_system=ctc stage_15", **options)
    assert "--pack_system ctc: not trained; there are: ssl" in done.stderr


def test_missing_checkpoint(recipe):
    write, run = recipe
    need = "need_checkpoint exp/valid.pth 10"
    assert "run stage 10 first" in run(need).stderr
    write("exp/.done", "")
    assert "choose a checkpoint of exp with --inference_asr" in run(need).stderr
    write("exp/valid.pth", "")
    assert run(need).returncode == 0


def test_tokens_of_data_in_a_folder_with_a_space(recipe):
    write, run = recipe
    write("show", '#!/bin/bash\nprintf "[%s]" "$@"\n', 0o755)
    for name in ("my data/train/text", "more", "most"):
        write(name, "a x\n")
    options = dict(
        datadir="my data", train_set="train", token_dir="my data/tokens", nj="1",
        token_type="char", nlsyms_txt="none", bpe_train_text="", train_cmd="./show",
    )  # fmt: skip
    done = run("stage_5", **options)
    assert "[--text][my data/train/text][--out_dir]" in done.stdout, done.stderr
    done = run("stage_5", **{**options, "bpe_train_text": "more most"})
    assert "[--text][more][most][--out_dir]" in done.stdout, done.stderr


def test_phones_are_made_again_where_they_must(recipe, tmp_path):
    write, run = recipe
    script = f". {TEMPLATE}/path.sh\nphone_sets"
    for name in ("train", "test"):
        write(f"raw/{name}/wav.scp", f"{name}-a a.flac\n")
        write(f"raw/{name}/utt2spk", f"{name}-a {name}\n")
        write(f"raw/{name}/text", f"{name}-a YES\n")
    write("my.lexicon", "YES j E s\n")
    options = dict(
        raw="raw", asr_raw="phn", perturbed_set="train", valid_set="train",
        test_sets="test", g2p="my.lexicon", nj="1", OFA_ROOT=str(TEMPLATE.parents[2]),
    )  # fmt: skip
    done = run(script, **options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "phn/test/text").read_text() == "test-a j E s\n"
    write("my.lexicon", "YES j a\n")
    again = run(script, **options)
    assert "now: my.lexicon" in again.stderr
    assert (tmp_path / "phn/train/text").read_text() == "train-a j a\n"
    assert "finished before" in run(script, **options).stdout


def test_fine_tuning_depends_on_how_text_is_read(recipe):
    write, run = recipe
    for name in ("wav.scp", "text"):
        write(f"dump/{name}", "a x\n")
    for name in ("tokens.txt", "symbols", "up/config.yaml", "stats/.done"):
        write(name, "x\n")
    options = dict(
        pretrained_upstream="", upstream="up", token_list="tokens.txt", fs="16k",
        asr_args="", asr_stats_dir="stats", asr_train="dump", asr_valid="dump",
        token_type="char", bpemodel="none", asr_exp="exp", asr_config="conf.yaml",
        asr_speech_fold_length="1", asr_text_fold_length="1", num_nodes="1", ngpu="0",
        num_threads="1", cuda_cmd="true", nlsyms_txt="none", cleaner="none",
    )  # fmt: skip
    assert run("stage_10", **options).returncode == 0
    options["nlsyms_txt"] = "symbols"
    for change in ({"nlsyms_txt": "symbols"}, {"cleaner": "tacotron"}):
        options.update(change)
        refused = run("stage_10", **options)
        assert refused.returncode == 1 and f"now: {[*change][0]}=" in refused.stderr
        assert run("stage_10", **options, overwrite="true").returncode == 0
    write("symbols", "others\n")
    assert "now: symbols" in run("stage_10", **options).stderr
    options["asr_args"] = "--init_param first.pth"  # a file among the options
    write("first.pth", "x\n")
    assert run("stage_10", **options, overwrite="true").returncode == 0
    write("first.pth", "trained again\n")
    assert "now: first.pth" in run("stage_10", **options).stderr


def test_targets_depend_on_the_weights_behind_them(recipe):
    write, run = recipe
    for name in ("raw/train/wav.scp", "raw/valid/wav.scp", "up/model.safetensors"):
        write(name, "x\n")
    options = dict(
        ssl_targets_dir="targets", ssl_dump="raw/train", valid_dump="raw/valid",
        ssl_num_codes="4", ssl_segments="codes", nj="1", train_cmd="true",
        ssl_targets_args="--upstream up --layer 6",
    )  # fmt: skip
    assert "finished" not in run("stage_6", **options).stdout
    assert "finished before" in run("stage_6", **options).stdout
    write("up/model.safetensors", "trained again\n")
    assert "now: up/model.safetensors" in run("stage_6", **options).stderr


def test_interrupted_targets_go_on(recipe, tmp_path):
    """Stage 6 keeps the codebook and the data sets that an interrupted run finished."""
    write, run = recipe
    rng = np.random.default_rng(0)
    for name in ("train", "valid"):
        for utt in ("a", "b"):
            noise = rng.normal(0, 0.1, 16000).astype(np.float32)
            soundfile.write(tmp_path / f"{name}_{utt}.wav", noise, 16000)
        scp = "".join(f"{utt} {tmp_path}/{name}_{utt}.wav\n" for utt in ("a", "b"))
        write(f"raw/{name}/wav.scp", scp)
        write(f"raw/{name}/utt2spk", "a a\nb b\n")
    options = dict(
        ssl_targets_dir="targets", ssl_dump="raw/train", valid_dump="raw/valid",
        ssl_num_codes="4", ssl_segments="codes", ssl_targets_args="", nj="1",
        train_cmd="run.pl",
    )  # fmt: skip
    stage_6 = f". {TEMPLATE}/path.sh\nstage_6"

    def contents():
        return {p: p.read_bytes() for p in sorted((tmp_path / "targets").glob("*/*"))}

    assert run(stage_6, **options).returncode == 0
    whole = contents()
    assert {p.name for p in whole} == {"targets", "boundaries", "facts.json"}

    targets = tmp_path / "targets"
    (targets / ".done").unlink()  # to redo what is finished is to redo it all
    broken = tmp_path / "valid_b.wav"
    broken.rename(tmp_path / "away")
    assert run(stage_6, **options).returncode == 1
    assert not (targets / "valid/targets").exists()  # not that of the run before
    (tmp_path / "away").rename(broken)
    kept = [targets / "kmeans.npy", targets / "train/targets"]
    times = [path.stat().st_mtime_ns for path in kept]
    assert run(stage_6, **options).returncode == 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert contents() == whole


@pytest.mark.parametrize(
    ("config", "options", "cores"),
    [
        ("num_workers: 4\n", "", 6),
        ("num_workers: 4  # a comment\n", "--num_workers 0", 2),
        ("lr: 1\n", "", 3),
    ],
)
def test_a_training_asks_for_the_cores_that_it_uses(recipe, config, options, cores):
    write, run = recipe
    write("conf.yaml", config)
    write("exp/.from", "")
    settings = dict(cuda_cmd="echo", ngpu="1", num_nodes="1", num_threads="2")
    done = run(f"train exp module --config conf.yaml {options}", **settings)
    assert done.returncode == 0, done.stderr
    assert f"--gpu 1 --num_threads {cores} exp/train.log" in done.stdout


ALONE = {
    "frontend_conf: {lam_conf: {init: 0.5, alone: true}}": "valid",
    "encoder_conf:\n    lam_conf:\n        alone: yes": "valid",
    '{"preencoder_conf": {"lam_conf": {"alone" : true}}}': "valid",
    "frontend_conf: {lam_conf: {alone: false}}": "train",
    "frontend_conf: {lam_conf: null}  # alone: true": "train",
    "frontend: default\nencoder_conf: null": "train",
    "": "train",
}


@pytest.mark.parametrize("text", ALONE)
def test_lambda_alone_learns_on_the_validation_set(recipe, text):
    write, run = recipe
    write("conf.yaml", text)
    done = run("learning_set conf.yaml")
    assert done.stdout.split() == [ALONE[text]], done.stderr


def test_only_a_configuration_says_that_lambda_learns_alone(recipe):
    _, run = recipe
    options = "--frontend_conf lam_conf.alone=true"
    sourced = f". {TEMPLATE}/utils/parse_options.sh; . {TEMPLATE}/stages/systems.sh"
    done = run(sourced, system="ofa", asr_args=options)
    assert done.returncode == 2 and "lam_conf.alone is for config" in done.stderr
