"""Scripts beside run.sh: what they ask of it, and of the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/ofa1"
SYNTH = TEMPLATE / "../../synth/ofa1"
# Beside the script: says how it was called, and leaves what a recipe would.
RUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" CALL >>calls
"""
PYTHON = f"""#!/usr/bin/env bash
[ "$1" = -m ] || exec {sys.executable} "$@"
printf '%s\\n' "$@" >>reports
"""


@pytest.fixture
def recipe(tmp_path):
    """Folder of a recipe, and a function that runs a script of the template there."""
    (tmp_path / "path.sh").symlink_to(TEMPLATE / "path.sh")
    for path, text in (("run.sh", RUN), ("bin/python3", PYTHON)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)

    def run(kind, *options, what="systems", where=TEMPLATE):
        link = tmp_path / f"run_{what}.sh"
        link.unlink(missing_ok=True)
        link.symlink_to(where / f"{kind}_{what}.sh")
        paths = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", link, *options],
            env={**os.environ, "PATH": paths, "VIRTUAL_ENV": sys.prefix},
            capture_output=True,
            text=True,
        )

    return tmp_path, run


def calls(folder):
    """Options of each call of run.sh."""
    found = []
    for call in (folder / "calls").read_text().split("\nCALL\n")[:-1]:
        words = call.split("\n")
        found.append(dict(zip(words[::2], words[1::2], strict=True)))
    return found


def finish(folder, *models):
    for model in models:
        (folder / "exp" / model).mkdir(parents=True)
        (folder / "exp" / model / ".done").touch()


def reports(folder):
    """Folders of results by name, for each report."""
    found, now = {}, {}
    lines = iter((folder / "reports").read_text().splitlines())
    for line in lines:
        if "=" in line:
            name, path = line.split("=")
            assert name not in now
            now[name] = path
        elif line == "--out":
            found[next(lines)], now = now, {}
    return found


def test_recognisers(recipe):
    folder, run = recipe
    options = ["--systems", "ofa ofa_at_1 squeeze", "--seeds", "1", "--nbpe", "50"]
    done = run("asr", *options, "--asr-args", "--max_epoch 2")  # as run.sh takes it
    assert done.returncode == 0, done.stderr
    ofa, at_1, squeeze = calls(folder)
    assert ofa["--system"] == "ofa" and ofa["--nbpe"] == "50"
    assert ofa["--ssl_args"] == "--seed 1" and ofa["--skip_stages"] == "11"
    assert ofa["--asr_args"] == "--seed 1 --max_epoch 2"
    assert ofa["--asr_tag"] == "system_ofa_seed1" and ofa["--adaptive_configs"] == ""
    # Fine-tuned from the upstream of another.
    assert at_1["--ssl_tag"] == ofa["--ssl_tag"] == "system_ofa_seed1"
    assert squeeze["--ssl_tag"] == "system_stochastic_seed1"


def test_lambdas_are_learned_without_joint_models(recipe):
    folder, run = recipe
    options = ["--systems", "ofa", "--seeds", "0", "--skip_stages", "9"]
    done = run("asr", *options, "--tasks", "ctc adaptive")
    assert done.returncode == 0, done.stderr
    (call,) = calls(folder)
    assert call["--skip_stages"] == "9 11"
    assert call["--s2s_tag"] == "none" and call["--s2s_adaptive_configs"] == ""
    assert "--adaptive_configs" not in call


def test_all_tasks_and_their_reports(recipe):
    folder, run = recipe
    mark = "decode_ctc"
    learned = f"asr_train_asr_adaptive_price_phone_ofa_seed12/{mark}"
    finish(
        folder,
        learned,
        f"asr_phone_mean2_seed0/{mark}",
        f"asr_phone_ofa_seed12/{mark}",
        "asr_phone_ofa_seed12/packed",
        "asr_phone_ofa_seed12_s2s/decode_s2s",
        f"asr_phone_ends_seed12/{mark}",
        f"asr_train_asr_adaptive_phone_ends_seed12/{mark}",
        f"asr_phones_mean2_seed0/{mark}",  # other tasks
        f"asr_system_ofa_seed12/{mark}",
        f"asr_train_asr_adaptive_system_ofa_seed12/{mark}",
    )
    options = ["--systems", "ofa", "--seeds", "0", "--tasks", "ctc s2s adaptive"]
    done = run("asr", *options, "--name", "phone", "--token_type", "phn")
    assert done.returncode == 0, done.stderr
    (call,) = calls(folder)
    assert call["--s2s_tag"] == "phone_ofa_seed0_s2s" and call["--token_type"] == "phn"
    assert not {"--adaptive_configs", "--s2s_adaptive_configs"} & set(call)
    assert call["--skip_stages"] == ""
    assert call["--ssl_tag"] == "system_ofa_seed0"  # one upstream for all tasks
    found = reports(folder)
    assert found.keys() == {"exp/report_phones", "exp/report_phones_s2s"}
    assert found["exp/report_phones"] == {
        "ofa@12": f"exp/asr_phone_ofa_seed12/{mark}",
        "mean2@0": f"exp/asr_phone_mean2_seed0/{mark}",
        "adaptive_price@12": f"exp/{learned}",
        "ends@12": f"exp/asr_phone_ends_seed12/{mark}",
        "adaptive_ends@12": f"exp/asr_train_asr_adaptive_phone_ends_seed12/{mark}",
    }
    assert found["exp/report_phones_s2s"] == {
        "ofa@12": "exp/asr_phone_ofa_seed12_s2s/decode_s2s"
    }


def test_results_of_two_ways_of_decoding_have_names_of_their_own(recipe):
    folder, run = recipe
    finish(
        folder, "asr_system_cif_at_1_seed0/a", "asr_system_cif_at_1_seed0/decode_ctc"
    )
    done = run("asr", "--systems", "")
    assert done.returncode == 0, done.stderr
    found = reports(folder)["exp/report_systems"]
    assert found.keys() == {"cif_at_1_a@0", "cif_at_1_decode_ctc@0"}


def test_models_and_results_in_another_folder(recipe):
    folder, run = recipe
    learned = "asr_train_asr_adaptive_system_ofa_seed0/decode_ctc"
    finish(folder, "../mine/" + learned, "../mine/asr_system_ofa_seed0/decode_ctc")
    finish(folder, "asr_system_mean2_seed0/decode_ctc")
    done = run("asr", "--systems", "ofa", "--seeds", "0", "--expdir", "mine")
    assert done.returncode == 0, done.stderr
    (call,) = calls(folder)
    assert call["--expdir"] == "mine"
    assert reports(folder) == {
        "mine/report_systems": {
            "ofa@0": "mine/asr_system_ofa_seed0/decode_ctc",
            "adaptive@0": f"mine/{learned}",
        }
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "ctc tts"], "--tasks are ctc, s2s and adaptive, not 'tts'"),
        (["--systems"], "--systems needs a value"),
        (["--name", "system_phn"], "--name has no _ in it; got 'system_phn'"),
    ],
)
def test_bad_options(recipe, options, message):
    folder, run = recipe
    done = run("asr", *options)
    assert done.returncode == 2 and message in done.stderr
    assert not (folder / "calls").exists()


def test_classifiers(recipe):
    folder, run = recipe
    assert run("cls").returncode == 2
    options = ["--systems", "ofa squeeze ofa_at_0.5", "--ngpu", "0"]
    done = run("cls", "--ssl_expdir", "../exp", *options)
    assert done.returncode == 0, done.stderr
    assert not (folder / "reports").exists()  # nothing is finished
    ofa, squeeze, at = calls(folder)
    assert ofa["--upstream"] == "../exp/ssl_system_ofa_seed0/upstream"
    assert at["--upstream"] == ofa["--upstream"]
    assert squeeze["--upstream"] == "../exp/ssl_system_stochastic_seed0/upstream"
    assert at["--system"] == "ofa_at_0.5" and at["--cls_tag"] != ofa["--cls_tag"]
    assert ofa["--cls_args"] == "--seed 0" and squeeze["--ngpu"] == "0"
    finish(
        folder,
        "cls_system_mean2_seed0/classify",
        "cls_system_ends_seed0/classify",
        "cls_system_ends_seed0/packed",
        "cls_system_ofa_seed0/classify",
        "cls_train_cls_adaptive_price_system_ofa_seed0/classify",
        "cls_train_cls_adaptive_price_system_ends_seed0/classify",
    )
    done = run("cls", "--ssl_expdir", "../exp", "--systems", "")
    assert done.returncode == 0, done.stderr
    found = reports(folder)["exp/report_systems"]
    learned = {"adaptive_price@0", "adaptive_price_ends@0"}
    assert set(found) == {"mean2@0", "ends@0", "ofa@0"} | learned
    assert found["ends@0"] == "exp/cls_system_ends_seed0/classify"


def test_starts_of_a_learned_lambda(recipe):
    folder, run = recipe
    done = run("cls", "--upstream", "up", what="starts")
    assert done.returncode == 1 and "valid.acc.ave.pth is missing" in done.stderr
    finish(folder, "cls_mine")
    (folder / "exp/cls_mine/valid.acc.ave.pth").touch()
    options = ["--upstream", "up", "--cls_tag", "mine", "--starts", "0.1 0.9"]
    done = run("cls", *options, "--cls_args", "--max_epoch 1", what="starts")
    assert done.returncode == 0, done.stderr
    first, *_, last = calls(folder)
    assert first["--upstream"] == "up" and first["--inference_lams"] == "own"
    assert first["--cls_config"] == "conf/train_cls_adaptive_price.yaml"
    assert last["--cls_config"] == "conf/train_cls_adaptive_valid.yaml"
    init = "--init_param exp/cls_mine/valid.acc.ave.pth"
    init += " --frontend_conf lam_conf.init=0.9"
    assert last["--cls_args"] == f"{init} --max_epoch 1"
    found = reports(folder)["exp/report_starts_mine"]
    assert found["adaptive_valid@0.9"] == f"exp/cls_{last['--cls_tag']}/classify"
    assert len(found) == 6
    done = run("cls", *options, "--configs", "adaptive", what="starts")
    assert done.returncode == 0, done.stderr
    assert len(reports(folder)["exp/report_starts_mine"]) == 2


def test_starts_of_recognisers(recipe):
    folder, run = recipe
    options = ["--asr_tag", "c", "--s2s_tag", "j", "--starts", "0.5", "--nj", "1"]
    where = {"what": "starts", "where": SYNTH}
    finish(folder, "asr_c", "asr_j")
    (folder / "exp/asr_c/valid.cer_ctc.ave.pth").touch()
    done = run("run", *options, **where)  # before anything is trained
    assert done.returncode == 1 and "asr_j/valid.acc.ave.pth is missing" in done.stderr
    assert not (folder / "calls").exists()
    (folder / "exp/asr_j/valid.acc.ave.pth").touch()
    done = run("run", *options, **where)
    assert done.returncode == 0, done.stderr
    price, plain, joint, alone, joint_alone = calls(folder)
    assert price["--asr_config"] == "conf/train_asr_adaptive_price.yaml"
    assert plain["--inference_config"] == "conf/decode_ctc.yaml"
    assert joint["--inference_asr_model"] == "valid.acc.ave.pth"
    assert joint["--asr_args"].startswith("--init_param exp/asr_j/valid.acc.ave.pth ")
    assert "lam_conf.init=0.5" in joint["--asr_args"] and joint["--nj"] == "1"
    (found,) = reports(folder).values()
    assert found["s2s_adaptive@0.5"] == f"exp/asr_{joint['--asr_tag']}/decode_s2s"
    assert alone["--asr_config"] == "conf/train_asr_adaptive_valid.yaml"
    assert found["adaptive_valid@0.5"] == f"exp/asr_{alone['--asr_tag']}/decode_ctc"
    assert joint_alone["--inference_asr_model"] == "valid.acc.ave.pth"
    assert len(found) == 5


def test_ablation_of_pre_training(recipe):
    folder, run = recipe
    where = {"what": "ablation", "where": SYNTH}
    options = ["--expdir", "mine", "--asr_args", "--max_epoch 1", "--nj", "1"]
    done = run("run", *options, **where)
    assert done.returncode == 1 and "run stages 1 to 9" in done.stderr
    config = folder / "mine/ssl_train_ssl_raw/upstream/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("dim: 32\n")
    for start in ("pretrained", "random"):
        for rate in ("0.0005", "0.001", "0.002", "0.004"):
            log = folder / f"mine/asr_ablation_{start}_lr{rate}_seed0/train.log"
            log.parent.mkdir()
            log.write_text(f"[valid] epoch, loss={0.002 if rate == '0.002' else 1}\n")
    done = run("run", *options, **where)
    assert done.returncode == 0, done.stderr
    first, *_, last = calls(folder)
    assert first["--expdir"] == "mine" and first["--nj"] == "1"
    assert first["--asr_args"].startswith("--seed 0 ")
    assert first["--asr_args"].endswith(" --max_epoch 1")
    assert "--pretrained_upstream" not in first
    random = folder / last["--pretrained_upstream"]
    assert random.read_text() == "dim: 32\n"
    found = reports(folder)["mine/report_ablation"]
    assert found["random@2"] == "mine/asr_ablation_random_lr0.002_seed2/decode_ctc"
    assert len(found) == 9


def test_a_tiny_run_leaves_the_folders_of_the_recipe(recipe):
    folder, run = recipe
    done = run("run", "--expdir", "mine", what="tiny", where=SYNTH)
    assert done.returncode == 0, done.stderr
    (call,) = calls(folder)
    assert call["--expdir"] == "mine"  # the last one counts
    assert call["--datadir"] == "data_tiny" and call["--dumpdir"] == "dump_tiny"
    assert call["--download_dir"] == "downloads/tiny"
