"""A teacher's hidden states on disk: whole, resumable, and of the right teacher."""

import json
from dataclasses import replace

import pytest
import torch

from espnet_ofa.pretrain.cache import CacheFacts, CacheReader, CacheWriter, plan_shards

FACTS = CacheFacts("hubert", "abc", (4, 8), 6)
FRAMES = {f"u{i}": 10 + 7 * i for i in range(8)}
SHARD = {"megabytes": 2 * 2 * 6 * 60 / 1e6}  # sixty frames


def states(utt):
    torch.manual_seed(int(utt[1:]))
    return torch.randn(FRAMES[utt], 2, 6)


def write(folder, facts=FACTS, frames=FRAMES):
    """Write what is missing; returns the numbers of those shards."""
    writer = CacheWriter(folder, facts, frames, **SHARD)
    numbers = []
    for number, utts in writer.missing():
        writer.write(number, {utt: states(utt) for utt in utts})
        numbers.append(number)
    writer.finish()
    return numbers


def index(folder):
    lines = (folder / "teacher.scp").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def test_shards_hold_everything_once_and_are_of_a_size():
    shards = plan_shards(FRAMES, FACTS, **SHARD)
    assert sorted(utt for utts in shards for utt in utts) == sorted(FRAMES)
    for utts in shards:
        assert len(utts) == 1 or sum(FRAMES[utt] for utt in utts) <= 60
    assert 1 < len(shards) < len(FRAMES)


def test_what_is_written_is_read_whole_or_in_part(tmp_path):
    write(tmp_path)
    table, reader = index(tmp_path), CacheReader(FACTS)
    assert table.keys() == FRAMES.keys()
    for utt, shard in table.items():
        n = FRAMES[utt]
        assert reader.frames(shard, utt) == n
        whole = reader.read(shard, utt, 0, n)
        torch.testing.assert_close(whole, states(utt), atol=1e-3, rtol=1e-3)
        assert whole.dtype == torch.float32
        assert torch.equal(reader.read(shard, utt, 3, 9), whole[3:9])


def test_an_interrupted_run_makes_only_what_is_missing(tmp_path):
    everything = write(tmp_path)
    assert write(tmp_path) == []
    table = index(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    before = {path: path.read_bytes() for path in shards}
    shards[1].unlink()
    shards[2].write_bytes(before[shards[2]][:-20])
    assert write(tmp_path) == [1, 2] and len(everything) > 3
    assert {path: path.read_bytes() for path in shards} == before
    assert index(tmp_path) == table


def test_shards_of_audio_that_changed_are_made_again(tmp_path):
    write(tmp_path)
    FRAMES_BEFORE = FRAMES["u3"]
    try:
        FRAMES["u3"] += 1
        assert len(write(tmp_path)) == 1
    finally:
        FRAMES["u3"] = FRAMES_BEFORE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "xyz"}, "fingerprint: expected xyz, found abc"),
        ({"layers": (4, 12)}, r"layers: expected \(4, 12\), found \(4, 8\)"),
        ({"dim": 7}, "dim: expected 7, found 6"),
    ],
)
def test_the_cache_of_another_teacher_is_refused(tmp_path, change, message):
    write(tmp_path)
    other = replace(FACTS, teacher="wavlm", **change)
    message = f"another teacher \\(hubert, not wavlm\\).*{message}"
    with pytest.raises(ValueError, match=message):
        write(tmp_path, other)
    shard = index(tmp_path)["u0"]
    with pytest.raises(ValueError, match=message):
        CacheReader(other).frames(shard, "u0")


def test_another_name_or_precision_of_the_same_teacher_is_fine(tmp_path):
    write(tmp_path)
    same = replace(FACTS, teacher="elsewhere/hubert", dtype="bfloat16")
    assert CacheReader(same).frames(index(tmp_path)["u0"], "u0") == FRAMES["u0"]


def test_damage_is_named(tmp_path):
    write(tmp_path)
    shard, reader = index(tmp_path)["u0"], CacheReader(FACTS)
    with pytest.raises(ValueError, match="u99 is not in this shard"):
        reader.read(shard, "u99", 0, 1)
    with pytest.raises(FileNotFoundError):
        reader.read(tmp_path / "teacher.77777.safetensors", "u0", 0, 1)
    with open(shard, "r+b") as file:
        file.truncate(50)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        reader.read(shard, "u0", 0, 1)
    facts = tmp_path / "teacher.json"
    facts.write_text(json.dumps({"teacher": "x"}))
    with pytest.raises(ValueError, match="not the facts of a teacher's cache"):
        CacheReader(FACTS).frames(shard, "u0")
    facts.unlink()
    with pytest.raises(FileNotFoundError, match=r"teacher\.json: not found"):
        CacheReader(FACTS).frames(shard, "u0")


def test_what_cannot_be_cached_is_named(tmp_path):
    writer = CacheWriter(tmp_path, FACTS, FRAMES, **SHARD)
    number, utts = next(writer.missing())
    good = {utt: states(utt) for utt in utts}
    with pytest.raises(ValueError, match="u0: expected hidden states of shape"):
        writer.write(number, {**good, "u0": torch.zeros(3, 2, 6)})
    with pytest.raises(ValueError, match="u0: .*not finite in float16; use bfloat16"):
        writer.write(number, {**good, "u0": 1e6 * states("u0")})
    with pytest.raises(ValueError, match="u0: .*not finite in float16$"):
        writer.write(number, {**good, "u0": torch.nan * states("u0")})
    with pytest.raises(FileNotFoundError, match="not written yet"):
        writer.finish()
    assert not (tmp_path / "teacher.scp").exists()
    with pytest.raises(ValueError, match="dtype must be float16 or bfloat16"):
        replace(FACTS, dtype="float32")
