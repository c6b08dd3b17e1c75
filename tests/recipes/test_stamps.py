"""Finished work is skipped, interrupted work goes on, what changed is noticed."""

import pytest

WORK = 'if {what} out conf.yaml "n=${{n:-1}}"; then echo made >>out/log; {end}; fi'


def made(folder):
    log = folder / "out/log"
    return log.read_text().count("made") if log.exists() else 0


@pytest.mark.parametrize("what", ["to_do", "to_update", "to_train"])
def test_finished_is_skipped(shell, tmp_path, what):
    work = WORK.format(what=what, end="finish out")
    assert shell(work).returncode == 0
    again = shell(work)
    assert made(tmp_path) == 1
    assert "finished before; to" in again.stdout
    (tmp_path / "conf.yaml").touch()  # same content
    shell(work)
    assert made(tmp_path) == 1
    (tmp_path / "out/.done").unlink()
    shell(work)
    assert (tmp_path / "out/.done").exists()


@pytest.mark.parametrize("what", ["to_do", "to_update", "to_train"])
def test_interrupted_goes_on(shell, tmp_path, what):
    assert shell(WORK.format(what=what, end="exit 1")).returncode == 1
    assert not (tmp_path / "out/.done").exists()
    assert shell(WORK.format(what=what, end="finish out")).returncode == 0
    assert made(tmp_path) == 2  # the first half was kept


@pytest.mark.parametrize("end", ["finish out", "exit 1"])
def test_changed_config_starts_data_again(shell, tmp_path, end):
    shell(WORK.format(what="to_do", end=end))
    (tmp_path / "out/old").write_text("left over")
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    done = shell(WORK.format(what="to_do", end="finish out"))
    assert done.returncode == 0
    assert made(tmp_path) == 1 and not (tmp_path / "out/old").exists()
    if end == "finish out":
        assert "was: conf.yaml" in done.stderr and "now: conf.yaml" in done.stderr


def test_changed_option_keeps_decodings(shell, tmp_path):
    work = WORK.format(what="to_update", end="finish out")
    shell(work)
    assert "now: n=2" in shell(work, n="2").stderr
    assert made(tmp_path) == 2


@pytest.mark.parametrize("end", ["finish out", "exit 1"])
def test_a_model_is_not_removed_unasked(shell, tmp_path, end):
    shell(WORK.format(what="to_train", end=end))
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    work = WORK.format(what="to_train", end="finish out")
    refused = shell(work)
    assert refused.returncode == 1 and made(tmp_path) == 1
    assert "--overwrite true" in refused.stderr and "now: conf.yaml" in refused.stderr
    assert shell(work, overwrite="true").returncode == 0
    assert made(tmp_path) == 1  # of the new one
    assert "finished before" in shell(work).stdout


def test_a_model_goes_on_where_its_stamp_is_removed(shell, tmp_path):
    work = WORK.format(what="to_train", end="finish out")
    shell(work)
    (tmp_path / "conf.yaml").write_text("lr: 2\n")
    (tmp_path / "out/.from").unlink()
    assert shell(work).returncode == 0
    assert made(tmp_path) == 2


@pytest.mark.parametrize("n", ["2", "1"])
@pytest.mark.parametrize("end", ["finish out", "exit 1"])
@pytest.mark.parametrize("what", ["to_do", "to_train"])
def test_interrupted_emptying_starts_again(shell, tmp_path, what, end, n):
    """With the new options as with the old ones: what is left fits neither."""
    shell(WORK.format(what=what, end=end))
    (tmp_path / "out/old").write_text("of the old options")
    work = WORK.format(what=what, end="finish out")
    interrupted = shell(f"find() {{ exit 130; }}\n{work}", n="2", overwrite="true")
    assert interrupted.returncode == 130 and (tmp_path / "out/old").exists()
    assert shell(work, n=n, overwrite="true").returncode == 0
    assert made(tmp_path) == 1 and not (tmp_path / "out/old").exists()


@pytest.mark.parametrize("what", ["to_do", "to_update", "to_train"])
@pytest.mark.parametrize("program", ["mkdir", "mv", "rm", "find"])
def test_failure_is_not_taken_for_finished(shell, tmp_path, what, program):
    shell(WORK.format(what=what, end="finish out"))
    work = WORK.format(what=what, end="finish out")
    broken = f"{program}() {{ return 1; }}\n{work}\necho went on"
    done = shell(broken, n="2", overwrite="true")
    if (what, program) == ("to_update", "find"):  # which empties nothing
        assert done.returncode == 0
        return
    assert done.returncode == 1 and "went on" not in done.stdout
    assert "Error: cannot" in done.stderr


def test_foreign_folder_is_left_alone(shell, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("mine")
    done = shell(WORK.format(what="to_do", end="finish out"))
    assert done.returncode == 1 and "did not make it" in done.stderr
    assert (tmp_path / "out/precious").exists()
