"""Pulling from a hub that serves, lies, stumbles or is not there."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import close_session
from huggingface_hub import HfApi, constants
from safetensors.torch import save_file
from tiny import UPSTREAM

from espnet_ofa import OFAUpstream
from espnet_ofa.bin import publish as command
from espnet_ofa.checksums import verify, write_checksums
from espnet_ofa.hub import pull
from espnet_ofa.interop.s3prl import UpstreamExpert
from espnet_ofa.upstream import UpstreamConfig
from espnet_ofa.zoo.pack import pack_upstream
from espnet_ofa.zoo.publish import publish
from espnet_ofa.zoo.pull import load_asr, load_cls, pull_asr, speech2text_options

NAME = "user/tiny"


@pytest.fixture
def published(hub, upstream_folder):
    """The hub with the tiny upstream on it."""
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=upstream_folder)
    hub.requests.clear()
    return hub


def same(a: OFAUpstream, b: OFAUpstream) -> bool:
    """Bit-equal weights and hidden states."""
    wave, lengths = torch.randn(1, 8000), torch.tensor([8000])
    states = [up(wave, lengths, lam=0.5).hidden_states[-1] for up in (a, b)]
    theirs = b.state_dict()
    return torch.equal(*states) and all(
        torch.equal(v, theirs[k]) for k, v in a.state_dict().items()
    )


def test_directory_zip_and_hub_id_all_serve(published, upstream_folder, tmp_path):
    local = OFAUpstream.from_pretrained(upstream_folder)
    archive = shutil.make_archive(str(tmp_path / "tiny"), "zip", upstream_folder)
    head = published.repos[NAME].head
    for name in (archive, NAME, f"{NAME}@{head}"):
        assert same(local, OFAUpstream.from_pretrained(name)), name
        assert same(local, OFAUpstream.from_pretrained(name, cache_dir=tmp_path / "c"))
    fetched = {path for method, path, _, _ in published.requests if method == "GET"}
    assert not any("README" in path for path in fetched)  # only what is needed
    assert (pull(NAME) / "README.md").is_file()  # everything
    assert verify(pull(archive)) and verify(pull(NAME))


def test_listed_and_private(hub, upstream_folder, monkeypatch, tmp_path):
    api = HfApi()
    api.create_repo(NAME, private=True)
    api.upload_folder(repo_id=NAME, folder_path=upstream_folder)
    assert [model.id for model in api.list_models(author="user")] == [NAME]
    files = {p.name for p in upstream_folder.iterdir()}
    assert set(api.list_repo_files(NAME)) == files
    OFAUpstream.from_pretrained(NAME)
    monkeypatch.delenv("HF_TOKEN")
    assert not list(api.list_models(author="user"))
    with pytest.raises(FileNotFoundError, match=f"{NAME}: no such.*HF_TOKEN"):
        OFAUpstream.from_pretrained(NAME, cache_dir=tmp_path / "empty")


@pytest.mark.parametrize("offline", ["option", "environment"])
def test_offline_uses_what_is_there(published, offline, monkeypatch, tmp_path):
    options = {"offline": True} if offline == "option" else {}
    online = OFAUpstream.from_pretrained(NAME)
    if offline == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        close_session()
    published.requests.clear()
    assert same(online, OFAUpstream.from_pretrained(NAME, **options))
    with pytest.raises(FileNotFoundError, match="other: no such.*; offline.*unset"):
        OFAUpstream.from_pretrained("user/other", **options)
    with pytest.raises(FileNotFoundError, match="offline"):  # only in another cache
        OFAUpstream.from_pretrained(NAME, cache_dir=tmp_path / "empty", **options)
    assert not published.requests


def test_every_way_to_a_revision(hub, tmp_path, capsys):
    ways = {}
    for seed, revision in enumerate((None, "v1")):
        torch.manual_seed(seed)
        upstream = OFAUpstream(UpstreamConfig.from_dict(UPSTREAM)).eval()
        upstream.save_pretrained(tmp_path / "upstream")
        folder = pack_upstream(tmp_path / "upstream", tmp_path / "packed")
        publish(folder, NAME, revision=revision)
        ways[revision] = upstream
    at_v1 = (
        OFAUpstream.from_pretrained(NAME, revision="v1"),
        OFAUpstream.from_pretrained(f"{NAME}@v1"),
        OFAUpstream.from_pretrained(NAME, revision="v1", offline=True),
        UpstreamExpert(f"{NAME}@v1", lam=0.5).eval().upstream,
    )
    for found in at_v1:
        assert same(ways["v1"], found)
    assert same(ways[None], OFAUpstream.from_pretrained(NAME))
    command.main(["pull", NAME, "--revision", "v1"])
    assert same(
        ways["v1"], OFAUpstream.from_pretrained(capsys.readouterr().out.strip())
    )
    with pytest.raises(FileNotFoundError, match=f"{NAME}@v2: expected.*Revision"):
        load_asr(NAME, revision="v2")
    with pytest.raises(OSError, match=f"{NAME}@v2: expected"):
        command.main(["pull", NAME, "--revision", "v2"])
    with pytest.raises(ValueError, match=f"{NAME}@v1 and revision v2"):
        pull(f"{NAME}@v1", revision="v2")
    with pytest.raises(ValueError, match="packed: only a hub id has revisions"):
        pull(folder, revision="v1")


def test_no_network(published, tmp_path, monkeypatch):
    OFAUpstream.from_pretrained(NAME)
    published.shutdown()
    published.server_close()
    close_session()
    OFAUpstream.from_pretrained(NAME)  # what was downloaded serves
    with pytest.raises(ConnectionError) as e:
        OFAUpstream.from_pretrained(NAME, cache_dir=tmp_path / "empty")
    for part in (NAME, published.url, "Connect", "HF_HUB_OFFLINE=1"):
        assert part in str(e.value)


@pytest.mark.parametrize("way", ["offline", "environment", "no hub"])
def test_part_of_it_in_the_cache(published, way, monkeypatch):
    """An upstream leaves the card out; a whole pull wants what no one has fetched."""
    folder = pull(NAME, only=["config.yaml"])
    if way == "environment":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if way == "no hub":
        published.shutdown()
        published.server_close()
    close_session()
    with pytest.raises(FileNotFoundError) as e:
        pull(NAME, offline=way == "offline" or None)
    message = str(e.value)
    assert "not all in the cache" in message and "model.safetensors" in message
    assert "emove" not in message and (folder / "config.yaml").is_file()


def test_what_the_hub_lacks_is_no_matter_of_the_cache(hub, upstream_folder):
    (upstream_folder / "model.safetensors").unlink()
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=upstream_folder)
    with pytest.raises(ValueError, match=f"{NAME}: .*model.safetensors: .*no such"):
        pull(NAME)


@pytest.mark.parametrize(
    "raised, kind, message",
    [
        (TimeoutError("slow"), ConnectionError, "Check the network"),
        (ConnectionResetError(104, "reset"), ConnectionError, "Check the network"),
        (PermissionError(13, "denied", "/c/x"), PermissionError, r"denied: '/c/x'"),
        (OSError(5, "I/O error"), OSError, r"user/tiny: I/O error: '.*cache'"),
        (KeyError("a bug"), KeyError, "^'a bug'$"),
    ],
)
def test_only_the_network_is_blamed_on_the_network(
    raised, kind, message, monkeypatch, tmp_path
):
    def fail(*args, **kwargs):
        raise raised

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(kind, match=message) as e:
        pull(NAME, cache_dir=tmp_path / "cache")
    assert ("the network and" in str(e.value)) == (kind is ConnectionError)


def test_a_zip_is_no_matter_of_the_hub(upstream_folder, tmp_path, monkeypatch):
    archive = shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder)

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "/cache/x")

    monkeypatch.setattr("zipfile.ZipFile.extractall", fail)
    with pytest.raises(PermissionError) as e:
        pull(archive, cache_dir=tmp_path / "cache")
    assert str(e.value) == (f"[Errno 13] {archive}: Permission denied: '/cache/x'")


def test_ids_that_do_not_exist(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"user/none: no such.*{published.url}"):
        OFAUpstream.from_pretrained("user/none")
    with pytest.raises(FileNotFoundError, match=r"tiny@v9: expected.*RevisionNotFound"):
        OFAUpstream.from_pretrained(f"{NAME}@v9")
    with pytest.raises(FileNotFoundError, match=r"user/a\.\.b: expected a hub id"):
        OFAUpstream.from_pretrained("user/a..b")
    for name in ("tiny", "a/b/c", "../x/y", str(tmp_path / "tiny.zip"), "exp/t.zip"):
        with pytest.raises(FileNotFoundError, match="expected a directory, a zip"):
            OFAUpstream.from_pretrained(name)
    published.requests.clear()


def test_wrong_token(published, monkeypatch):
    with pytest.raises(PermissionError, match=f"{NAME}: .*accept the token.*hf auth"):
        OFAUpstream.from_pretrained(NAME, token="hf_wrong")


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_altered_or_truncated_is_refused(published, name, tmp_path):
    flip = bytearray(b"\x01" * 1 + b"\x00" * 100_000)
    changes = {
        "alter": lambda data: bytes(a ^ b for a, b in zip(data, flip, strict=False)),
        "truncate": lambda data: data[:-1],
    }
    for kind, change in changes.items():
        published.altered[name] = change
        with pytest.raises(ValueError) as e:
            OFAUpstream.from_pretrained(NAME, cache_dir=tmp_path / kind)
        good = published.files(NAME)[name]
        found = change(good)
        expected = {
            "alter": f"expected sha256 {sha(good)}, found {sha(found)}",
            "truncate": f"expected {len(good)} bytes, found {len(found)}",
        }
        assert f"{name}: {expected[kind]}" in str(e.value)
        assert NAME in str(e.value) and str(tmp_path / kind) in str(e.value)
        # The advice helps: what it names is removed, the hub is well again.
        published.altered.clear()
        cache = str(e.value).split("Remove all of ")[1].split(" and get")[0]
        shutil.rmtree(cache)
        OFAUpstream.from_pretrained(NAME, cache_dir=tmp_path / kind)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_cut_connection_resumes(hub, tmp_path):
    chunk = constants.DOWNLOAD_CHUNK_SIZE  # the client keeps whole ones
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * (chunk // 250))
    write_checksums(folder)
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    hub.cut_downloads["model.safetensors"] = [chunk + 1000, 2000]
    hub.requests.clear()
    for _ in range(3):
        with suppress(
            ConnectionError
        ):  # older clients go on when they are called again
            assert verify(pull(NAME))
            break
    ranges = [r for m, p, r, _ in hub.requests if "model.s" in p and m == "GET"]
    assert ranges == ["", f"bytes={chunk}-", f"bytes={chunk}-"]


def test_a_connection_that_stays_cut(published, tmp_path):
    published.cut_downloads["model.safetensors"] = [0] * 10
    with pytest.raises(
        ConnectionError, match=f"{NAME}: .*(peer closed|Incomplete).*call again"
    ):
        OFAUpstream.from_pretrained(NAME)
    published.cut_downloads.clear()
    published.requests.clear()
    OFAUpstream.from_pretrained(NAME)
    again = [path for method, path, _, _ in published.requests if method == "GET"]
    assert sum("/resolve/" in path for path in again) == 1  # the others are kept


def test_a_damaged_zip_is_refused(upstream_folder, tmp_path, hub):
    archive = Path(shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder))
    data = archive.read_bytes()
    archive.write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"t\.zip: expected .*a whole zip"):
        pull(archive)
    at = data.index(b"PK\x01\x02") // 2  # within a member
    archive.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match=r"t\.zip: damaged .*get it again"):
        pull(archive)
    weights = upstream_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])  # a sound zip of something else
    archive = shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder)
    message = rf"{archive} is not what .*model\.safetensors: expected sha256.*it again"
    with pytest.raises(ValueError, match=message) as e:
        pull(archive)
    assert "archives" not in str(e.value)  # where it was unpacked is nobody's business


def test_what_was_unpacked_is_unpacked_again(upstream_folder, tmp_path, caplog):
    archive = shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder)
    weights = pull(archive, cache_dir=tmp_path / "cache") / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[::-1])
    assert verify(pull(archive, cache_dir=tmp_path / "cache"))
    assert weights.read_bytes() == sound


def test_without_some(published, upstream_folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder)
    for name in (NAME, archive, upstream_folder):
        folder = pull(name, without="*.safetensors")
        assert (folder / "config.yaml").is_file()
    fetched = {path for method, path, _, _ in published.requests if method == "GET"}
    assert not any("safetensors" in path for path in fetched)
    (upstream_folder / "model.safetensors").write_bytes(b"other")
    pull(upstream_folder, without="*.safetensors")
    (upstream_folder / "config.yaml").write_text("other")
    with pytest.raises(ValueError, match=r"config\.yaml: expected"):
        pull(upstream_folder, without="*.safetensors")


def test_folders_that_lack_something(upstream_folder, tmp_path):
    (upstream_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: .*found no such file"):
        OFAUpstream.from_pretrained(upstream_folder)
    (upstream_folder / "checksums.json").write_text(json.dumps({"files": ["x"]}))
    with pytest.raises(ValueError, match=r"checksums\.json: expected"):
        OFAUpstream.from_pretrained(upstream_folder)
    (upstream_folder / "checksums.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: not found"):
        OFAUpstream.from_pretrained(upstream_folder)
    for load, stage in ((load_asr, "recipe stage 14"), (load_cls, r"7 of cls\.sh")):
        with pytest.raises(
            FileNotFoundError, match=rf"meta\.yaml.*OFAUpstream.*{stage}\)$"
        ):
            load(upstream_folder)
    (tmp_path / "asr").mkdir()
    (tmp_path / "asr" / "meta.yaml").write_text("files: {asr_model_file: exp/a.pth}\n")
    with pytest.raises(FileNotFoundError, match=r"A recogniser\? Load it with"):
        OFAUpstream.from_pretrained(tmp_path / "asr")
    with pytest.raises(ValueError, match="expected mappings yaml_files and files"):
        load_asr(tmp_path / "asr")
    with (tmp_path / "asr" / "meta.yaml").open("a") as meta:
        meta.write("yaml_files: {asr_train_config: exp/c.yaml}\n")
    with pytest.raises(FileNotFoundError, match=r"exp/c\.yaml: meta\.yaml names it"):
        load_asr(tmp_path / "asr")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def packed_asr(folder: Path, **files: object) -> Path:
    """What a packed recogniser looks like, with ``files`` as its checkpoints."""
    (folder / "exp").mkdir(parents=True)
    (folder / "exp/config.yaml").write_text("token_list: [a, b]\n")
    names = {}
    for key, content in files.items():
        names[key] = f"exp/{key}.pth"
        torch.save(content, folder / names[key])
    meta = {"yaml_files": {"asr_train_config": "exp/config.yaml"}, "files": names}
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
    return folder


@pytest.mark.parametrize("key", ["asr_model_file", "lm_file"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_code_in_a_checkpoint_is_not_run(key, form, tmp_path):
    mark = tmp_path / "ran"
    good = {"w": torch.zeros(2)}
    content = {**good, "x": Payload(mark)}
    files = {"asr_model_file": good, key: content}
    folder = packed_asr(tmp_path / "asr", **files)
    path = folder / f"exp/{key}.pth"
    if form == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    for load in (load_asr, lambda f: speech2text_options(f).__enter__()):
        with pytest.raises(
            ValueError, match=f"{key}.pth: expected a state dict.*runs code.*ask"
        ):
            load(folder)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # as ESPnet would
    assert mark.exists()


@pytest.mark.parametrize("name", ["meta.yaml", "exp/config.yaml"])
@pytest.mark.parametrize("text", [b"a: [1\nb: {", b"\xff\xfe\x01", b"just words"])
def test_broken_yaml_is_named(name, text, tmp_path):
    folder = packed_asr(tmp_path / "asr", asr_model_file={"w": torch.zeros(2)})
    (folder / name).write_bytes(text)
    with pytest.raises(ValueError, match=f"asr/{name}: expected"):
        load_asr(folder)


@pytest.mark.parametrize("files", ["{a: 1}", "{asr_model_file: [x]}", "[a]", "{}"])
def test_meta_that_names_no_paths(files, tmp_path):
    folder = packed_asr(tmp_path / "asr")
    (folder / "meta.yaml").write_text(f"yaml_files: {{}}\nfiles: {files}\n")
    with pytest.raises(ValueError, match=r"meta\.yaml: expected mappings"):
        load_asr(folder)
    config = "yaml_files: {asr_model_file: exp/config.yaml}\nfiles: {}\n"
    (folder / "meta.yaml").write_text(config)  # a checkpoint among the configs
    with pytest.raises(ValueError, match=r"meta\.yaml: expected mappings"):
        load_asr(folder)


def test_meta_names_files_of_its_package(tmp_path):
    folder = packed_asr(tmp_path / "asr", asr_model_file={"w": torch.zeros(2)})
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    (tmp_path / "other.pth").write_bytes(b"")
    for name in ("../other.pth", str(tmp_path / "other.pth")):
        meta["files"]["asr_model_file"] = name
        (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
        with pytest.raises(ValueError, match=r"names of files in its folder.*other"):
            load_asr(folder)
    meta["files"]["asr_model_file"] = "exp/asr_model_file.pth"
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
    listed = json.loads(write_checksums(folder).read_text())
    del listed["files"]["exp/asr_model_file.pth"]
    (folder / "checksums.json").write_text(json.dumps(listed))
    with pytest.raises(ValueError, match=r"to list exp/asr_model_file\.pth.*found no"):
        load_asr(folder)


def test_unknown_arguments_in_meta(tmp_path):
    folder = packed_asr(tmp_path / "asr", asr_model_file={"w": torch.zeros(2)})
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    meta["files"]["vad_file"] = "exp/config.yaml"
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta))
    message = r"meta\.yaml: expected of files only asr_model_file, .*, found vad_file"
    with pytest.raises(ValueError, match=message):
        load_asr(folder)


def test_weights_come_from_safetensors(tmp_path):
    """Then the checkpoint beside them is not read, and need not be there."""
    weights = {"w": torch.randn(3000)}
    folder = packed_asr(tmp_path / "asr", asr_model_file={"x": Payload(tmp_path / "r")})
    save_file(weights, folder / "model.safetensors")
    os.utime(folder / "model.safetensors", (0, 0))
    with speech2text_options(folder) as options:
        path = Path(options["asr_model_file"])
        found = torch.load(path, weights_only=True)
        assert path.stat().st_mtime == 0 and path.suffix == ".pth"
    assert torch.equal(found["w"], weights["w"])
    (folder / "exp/asr_model_file.pth").unlink()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))  # as if full
    try:
        with (
            pytest.raises(OSError, match=f"{folder}: no room for a copy .*TMPDIR"),
            speech2text_options(folder),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    write_checksums(folder)
    listed = json.loads((folder / "checksums.json").read_text())
    del listed["files"]["model.safetensors"]
    (folder / "checksums.json").write_text(json.dumps(listed))
    with (
        pytest.raises(ValueError, match=r"to list model\.safetensors.*found no"),
        speech2text_options(folder),
    ):
        pass


def test_a_zip_cut_behind_a_checkpoint_is_refused(tmp_path):
    folder = packed_asr(tmp_path / "asr", asr_model_file={"w": torch.randn(9000)})
    (folder / "zz.bin").write_bytes(bytes(range(256)) * 200)
    files = [folder / "exp/asr_model_file.pth", folder / "zz.bin"]
    archive = tmp_path / "t.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in files:
            file.write(path, path.relative_to(folder).as_posix())
    cut = archive.read_bytes().index(b"zz.bin") + 1000
    archive.write_bytes(archive.read_bytes()[:cut])
    assert zipfile.is_zipfile(archive)  # by the end of the checkpoint, a zip itself
    with pytest.raises(ValueError, match=r"t\.zip: damaged .*get it again"):
        pull(archive, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("content", [[1], {"model": {"w": torch.zeros(2)}}])
def test_what_is_no_state_is_refused(content, tmp_path):
    folder = packed_asr(tmp_path / "asr", asr_model_file=content)
    with pytest.raises(ValueError, match=r"asr_model_file\.pth: expected a state"):
        load_asr(folder)


def test_unlisted_folders_serve_with_a_word(hub, upstream_folder, caplog):
    (upstream_folder / "checksums.json").unlink()
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=upstream_folder)
    OFAUpstream.from_pretrained(NAME)
    assert f"{NAME} has no checksums.json" in caplog.text
    for card in (True, False):  # what training exports has none
        caplog.clear()
        OFAUpstream.from_pretrained(upstream_folder)
        told = f"{upstream_folder} has no checksums.json: it is not verified"
        assert (told in caplog.text) == card
        (upstream_folder / "README.md").unlink(missing_ok=True)
    command.main(["pull", str(upstream_folder)])
    assert told in caplog.text


def test_an_empty_name_is_no_folder():
    with pytest.raises(ValueError, match="expected a directory.*empty name"):
        command.main(["pull", ""])


def test_only_the_checkpoint_of_espnet_is_left_out(hub, tmp_path):
    """Not what the config names, although it is a checkpoint too."""
    weights = {"w": torch.randn(3)}
    folder = packed_asr(tmp_path / "asr", asr_model_file=weights)
    save_file(weights, folder / "model.safetensors")
    torch.save(weights, folder / "exp/beats.pth")
    write_checksums(folder)
    api = HfApi()
    api.create_repo(NAME)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    found = pull_asr(NAME)
    assert {p.name for p in (found / "exp").iterdir()} == {"beats.pth", "config.yaml"}


DISK_FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from espnet_ofa.hub import pull
try:
    pull(sys.argv[1], cache_dir=sys.argv[2])
except OSError as e:
    print(type(e).__name__, e)
"""


def test_a_full_disk(published, upstream_folder, tmp_path, run_python):
    archive = shutil.make_archive(str(tmp_path / "t"), "zip", upstream_folder)
    cache = tmp_path / "cache"
    env = published.environment(tmp_path / "other")
    for name in (NAME, archive):
        out = run_python(DISK_FULL, env, name, str(cache), cwd=tmp_path)
        assert out.startswith(f"OSError {name}: no room"), out
        assert "cache_dir" in out
        pull(name, cache_dir=cache)  # what it left behind does no harm
    assert not list(cache.rglob("*.incomplete")) + list(cache.rglob(".unpacking*"))


PACK_ON_A_FULL_DISK = """
import resource, signal, sys
from espnet_ofa.bin.publish import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    main(["pack_upstream", "--upstream_dir", sys.argv[1], "--out_dir", sys.argv[2]])
except OSError as e:
    print(e)
"""


def test_packing_onto_a_full_disk(upstream_folder, tmp_path, run_python):
    """An earlier package stays, and nothing of the new one."""
    (upstream_folder / "checksums.json").unlink()
    folder = pack_upstream(upstream_folder, tmp_path / "packed")
    arguments = (str(upstream_folder), str(folder))
    out = run_python(PACK_ON_A_FULL_DISK, {}, *arguments, cwd=tmp_path)
    assert "File too large" in out
    assert verify(folder) and not list(tmp_path.glob(".packed*"))
