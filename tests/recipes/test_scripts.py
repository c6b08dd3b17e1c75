"""The shell layer: options, and where recipes may live."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EGS = ROOT / "egs2"
TEMPLATE = EGS / "TEMPLATE/ofa1"
RECIPES = sorted(p for p in EGS.glob("*/*1") if p != TEMPLATE)
LINKED = ("path.sh", "cmd.sh", "db.sh")


def name_of(recipe):
    return "/".join(recipe.parts[-2:])


def stages_of(recipe):
    """The program that holds the recipe's options."""
    (found,) = [n for n in ("ofa.sh", "cls.sh") if (recipe / n).exists()]
    return found


def sources(folder):
    """Files of a folder without what recipes write; without git, all of them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        listed = done.stdout.splitlines() if done.returncode == 0 else []
    except FileNotFoundError:
        listed = []
    return [folder / name for name in listed] or list(folder.rglob("*"))


def run(*command, cwd, **env):
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_recipe_is_thin(recipe):
    for name in (stages_of(recipe), *LINKED):
        assert (recipe / name).is_symlink()
        assert (recipe / name).resolve() == TEMPLATE / name
    assert os.access(recipe / "run.sh", os.X_OK)
    assert os.access(recipe / "local/data.sh", os.X_OK)
    assert len((recipe / "run.sh").read_text().splitlines()) < 40
    broken = [p for p in sources(recipe) if p.is_symlink() and not p.exists()]
    assert not broken


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_help_lists_options(recipe):
    done = run(recipe / "run.sh", "--help", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    only = {"ofa.sh": "--hf_repo", "cls.sh": "--upstream"}[stages_of(recipe)]
    for option in ("--stage (1)", "--nj", "--inference_lams", only):
        assert f"  {option}" in done.stdout
    assert "first stage" in done.stdout
    if recipe.parts[-2] == "synth":  # what its run.sh sets
        assert "  --test_sets (test test_spell)\n" in done.stdout
    done = run("local/data.sh", "--help", cwd=recipe)
    assert done.returncode == 0 and "--download_dir (downloads)" in done.stdout


@pytest.mark.parametrize(
    "script", sorted(EGS.glob("*/*/run_[as][bty]*.sh")), ids=name_of
)
def test_help_of_comparisons(script):
    # Their own, not that of run.sh, to which they hand on what they do not know.
    done = run(script, "--help", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"  ./{script.name} " in done.stdout and "[OPTION...]" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nosuch", "1"], "unknown option --nosuch"),
        (["--PATH", "1"], "unknown option --PATH"),
        (["--nj"], "--nj needs a value"),
        (["--nj=3"], "write --name value"),
        (["--nj", "many"], "--nj is a number"),
        (["--stage", ""], "--stage is a number"),
        (["--skip_stages", "10,11"], "--skip_stages is numbers of stages, with spaces"),
        (["--fs", "8k"], "--fs is 16k"),
        (["stray"], "stray is not an option"),
        (["--overwrite", "yes"], "--overwrite is true or false"),
        (["--token_type", "word"], "--token_type is one of bpe, char, phn; not"),
        (["--g2p", "espeak"], "--g2p goes with --token_type phn"),
        (["--train-set", ""], "--train_set is required"),
        (["--audio_format", "mp3"], "--audio_format is one of flac, wav; not 'mp3'"),
        (["--ssl_teacher", "no/such/one"], "--ssl_teacher: no/such/one: no such file"),
        (["--s2s_config", "no.yaml"], "--s2s_config: no.yaml: no such configuration"),
        (["--asr_config", "a b.yaml"], "--asr_config: a b.yaml: no such configuration"),
        (["--inference_lams", "0 auto"], "auto needs --inference_args with --max_rtf"),
        (["--pretrained_upstream", "conf"], "conf holds no config.yaml"),
        (["--adaptive_configs", "ofa.sh no"], "--adaptive_configs: no: no such"),
        (
            ["--inference_lams", "0 x 3"],
            "--inference_lams is lambdas from 0 to 2 as decimal numbers, or own",
        ),
        (["--inference_squeezes", "1.2"], "--inference_squeezes is S,q,k of each"),
        (["--pack_onnx", "maybe"], "--pack_onnx is one of auto, true, false"),
        (["--skip_upload_hf", "false"], "stage 15 needs --hf_repo USER/NAME"),
        (
            ["--skip_upload_hf", "false", "--hf_repo", "a/b", "--pack_system", "all"],
            "--pack_system is one of ctc, s2s, ssl, adaptive, adaptive_price,",
        ),
    ],
)
def test_bad_options(arguments, message):
    done = run("./run.sh", *arguments, cwd=EGS / "synth/ofa1")
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("program", "recipe", "least"),
    [("ofa.sh", "synth/ofa1", 50), ("cls.sh", "speech_commands/ofa1", 25)],
)
def test_every_option_is_documented(program, recipe, least):
    lines = (TEMPLATE / program).read_text().split("# End of options")[0].splitlines()
    names = [line.split("=")[0] for line in lines if line[:1].islower() and "=" in line]
    done = run(f"./{program}", "--help", cwd=EGS / recipe)
    listed = [x.split()[0] for x in done.stdout.splitlines() if x.startswith("  --")]
    assert listed == [f"--{name}" for name in names]
    assert len(names) > least


def test_skipped_stages(tmp_path):
    done = run(
        *("./run.sh", "--datadir", tmp_path / "d", "--expdir", tmp_path / "e"),
        *("--dumpdir", tmp_path / "u", "--skip_data_prep", "true"),
        *(
            "--pretrained_upstream",
            "x",
            "--skip_stages",
            "9 10 11 12 13",
            "--stage",
            "1",
        ),
        cwd=EGS / "synth/ofa1",
    )
    assert done.returncode == 1
    assert "Stage 14" in done.stdout and "Stage 8" not in done.stdout
    assert "no trained model" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["0", "02"])
def test_stages_are_decimal_and_start_at_1(stage):
    options = ["--stage", stage, "--stop_stage", "03", "--skip_stages", "1 03"]
    options += ["--s2s_config", "nowhere.yaml"]  # of a stage that will not run
    done = run("./run.sh", *options, cwd=EGS / "synth/ofa1")
    assert done.returncode == 0, done.stderr
    assert "Stage 2: speed" in done.stdout and "Stage 0" not in done.stdout


def test_cores_are_those_that_may_be_used():
    one = min(os.sched_getaffinity(0))
    settings = f"""set -euo pipefail
        OFA_TEMPLATE={TEMPLATE}
        . {TEMPLATE}/utils/parse_options.sh
        . {TEMPLATE}/stages/common.sh
        eval "$(sed -n '/^## /,/^# End/p' {TEMPLATE}/ofa.sh)"
        train_set=x valid_set=x test_sets=x ngpu=0
        . {TEMPLATE}/stages/settings.sh
        echo ${{nj}} ${{num_threads}}"""
    done = subprocess.run(
        ["bash", "-c", settings],
        cwd=EGS / "synth/ofa1",
        env={**os.environ, "OMP_NUM_THREADS": "7"},  # of the data tools
        preexec_fn=lambda: os.sched_setaffinity(0, {one}),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1 1\n", done.stderr


def test_without_a_joint_model_nothing_starts_from_it(tmp_path):
    for name in ("ctc/valid.pth", "joint/valid.pth"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()

    def trained(skipped):
        script = f"""set -euo pipefail
            . {TEMPLATE}/stages/common.sh
            . {TEMPLATE}/stages/asr.sh
            adaptive_exp() {{ echo "exp/$1"; }}
            fine_tune() {{ echo "trains $2"; }}
            asr_args="" adaptive_args="" skip_stages="{skipped}"
            asr_exp=ctc inference_asr_model=valid.pth adaptive_configs=one
            s2s_exp=joint inference_s2s_model=valid.pth s2s_adaptive_configs=two
            stage_12"""
        done = run("bash", "-c", script, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return re.findall("trains (.*)", done.stdout)

    assert trained("11") == trained("9 11") == ["one"]
    assert trained("9") == trained("") == ["one", "two"]
    (tmp_path / "joint/.done").touch()
    assert trained("11") == ["one", "two"]


def test_an_environment_without_espnet_gives_way(tmp_path):
    (tmp_path / "checkout/.venv/bin").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"])

    def environment(active, python):
        path = f"{active}/bin:{python.parent}:{os.environ['PATH']}"
        done = run(
            *("bash", "-euc", '. ./path.sh; echo "${VIRTUAL_ENV}"; which -a python3'),
            cwd=EGS / "synth/ofa1",
            VIRTUAL_ENV=str(active),
            PATH=path,
            OFA_ROOT=str(tmp_path / "checkout"),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]

    python = Path(sys.executable)
    own = str(tmp_path / "checkout/.venv")
    assert environment(tmp_path / "other", python) == own
    assert environment(python.parents[1], python) == str(python.parents[1])


def test_make_in_a_folder_with_a_space(tmp_path):
    folder = tmp_path / "my checkout"
    recipe = folder / "egs2/synth/ofa1"
    recipe.mkdir(parents=True)
    say = '#!/bin/sh\necho "env: ${VIRTUAL_ENV}."; which tool\n'
    (recipe / "run.sh").write_text(say)
    (folder / "requirements").mkdir()
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "espnet_ofa.pth"):
        (folder / name).touch()
    for name in ("install.sh", "lock.txt"):
        (folder / "requirements" / name).touch()
    for name in ("egs2/synth/ofa1/run.sh", ".venv/bin/python", ".venv/bin/tool"):
        (folder / name).touch()
        (folder / name).chmod(0o755)
    (folder / ".venv/.installed-run").touch()
    shutil.copy(ROOT / "Makefile", folder)
    done = run("make", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"env: {folder}/.venv.\n{folder}/.venv/bin/tool\n" in done.stdout


def test_missing_input_names_the_stage(tmp_path):
    done = run(
        *("./run.sh", "--stage", "3", "--datadir", tmp_path / "data"),
        cwd=EGS / "synth/ofa1",
    )
    assert done.returncode == 1
    assert f"{tmp_path}/data/train/wav.scp does not exist; run stage 1" in done.stderr


def test_inside_an_espnet_tree(tmp_path):
    """Copied next to ESPnet's recipes, with its environment and Kaldi's utils/."""
    for name in ("TEMPLATE", "synth"):
        shutil.copytree(
            EGS / name / "ofa1",
            tmp_path / "egs2" / name / "ofa1",
            ignore=shutil.ignore_patterns("data", "dump", "exp", "downloads", "*_tiny"),
            symlinks=True,
        )
    copied = list((tmp_path / "egs2").rglob("*"))
    assert not [p for p in copied if p.is_symlink() and not p.exists()]
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/activate_python.sh").write_text("export ACTIVATED=$NOTHING\n")
    recipe = tmp_path / "egs2/synth/ofa1"
    (recipe / "utils").mkdir()
    kaldi = recipe / "utils/run.pl"
    kaldi.write_text("#!/bin/sh\necho kaldi >&2; exit 3\n")
    kaldi.chmod(0o755)

    done = run(
        "./run.sh", "--stage", "2", "--stop_stage", "2", cwd=recipe, OFA_ROOT=ROOT
    )
    assert done.returncode == 0, done.stderr
    done = run(
        "bash", "-c", ". ./path.sh; command -v run.pl", cwd=recipe, OFA_ROOT=ROOT
    )
    assert done.stdout.strip() == str(kaldi)
    # Without the checkout, what to do is said.
    done = run("./run.sh", "--stop_stage", "1", cwd=recipe)
    assert done.returncode == 1
    assert "set OFA_ROOT to a checkout of espnet_ofa" in done.stderr


def test_unknown_backend():
    recipe = EGS / "synth/ofa1"
    done = run("./run.sh", "--stage", "2", cwd=recipe, cmd_backend="carrier_pigeon")
    assert done.returncode == 1
    assert "unknown cmd_backend=carrier_pigeon" in done.stderr
