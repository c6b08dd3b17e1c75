"""Uploading to a hub that is real except for where it is."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import time

import pytest
import yaml
from hub_server import close_session
from huggingface_hub import HfApi

from espnet_ofa.bin import publish as command
from espnet_ofa.checksums import verify, write_checksums
from espnet_ofa.upstream import OFAUpstream
from espnet_ofa.zoo.card import About, task_card
from espnet_ofa.zoo.leaks import refuse_secrets
from espnet_ofa.zoo.pack import pack_upstream
from espnet_ofa.zoo.publish import packed_files, publish

NAME = "user/tiny"
FILES = {
    *("README.md", "checksums.json", "config.json", "config.yaml"),
    *("model.safetensors", "preprocessor_config.json"),
}


@pytest.fixture
def packed(upstream_folder, tmp_path):
    return pack_upstream(upstream_folder, tmp_path / "packed")


def test_a_dry_run_names_the_branch(packed, capsys):
    publish(packed, NAME, revision="v1", dry_run=True)
    assert capsys.readouterr().out.splitlines()[0].endswith(f"/{NAME}/tree/v1")


def puts(hub) -> int:
    """Blobs that arrived."""
    found = [r for r in hub.requests if r[0] == "PUT" and r[3] == 200]
    hub.requests.clear()
    return len(found)


def test_everything_arrives_in_one_commit(hub, packed, capsys):
    arguments = ["upload", "--folder", str(packed), "--repo", NAME]
    command.main(arguments)
    assert capsys.readouterr().out.strip() == f"{hub.url}/{NAME}"
    files = hub.files(NAME)
    assert set(files) == FILES and not hub.repos[NAME].private
    for name in FILES - {"README.md"}:
        assert files[name] == (packed / name).read_bytes()
    card = files["README.md"].decode()
    assert f'from_pretrained("{NAME}")' in card and "USER/NAME" not in card
    assert hub.cards[0]["library_name"] == "espnet"
    assert len(hub.repos[NAME].commits) == 2  # the first is the empty one
    OFAUpstream.from_pretrained(NAME)
    # What is there is not sent again.
    assert puts(hub) == 1
    assert publish(packed, NAME) == f"{hub.url}/{NAME}"
    assert puts(hub) == 0 and set(hub.files(NAME)) == FILES


def test_private(hub, packed):
    publish(packed, NAME, private=True)
    assert hub.repos[NAME].private
    publish(packed, NAME, private=True)
    publish(packed, "user/open")
    with pytest.raises(FileExistsError, match="user/open: is there and public"):
        publish(packed, "user/open", private=True)


def test_a_later_package_replaces_the_earlier(hub, packed):
    publish(packed, NAME)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id=NAME)
    (packed / "extra.yaml").write_text("a: 1\n")
    write_checksums(packed)
    publish(packed, NAME)
    assert set(hub.files(NAME)) == FILES | {"extra.yaml", "notes.txt"}
    (packed / "extra.yaml").unlink()
    write_checksums(packed)
    publish(packed, NAME)
    assert set(hub.files(NAME)) == FILES | {"notes.txt"}


def test_a_repository_of_something_else(hub, packed):
    api = HfApi()
    api.create_repo(NAME)
    publish(packed, NAME)  # empty: ours to fill
    api.create_repo("user/other")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="user/other")
    with pytest.raises(FileExistsError, match=r"user/other: expected .* found x\.txt"):
        publish(packed, "user/other")
    assert set(hub.files("user/other")) == {"x.txt"}
    publish(packed, "user/other", exist_ok=True)
    assert set(hub.files("user/other")) == FILES | {"x.txt"}


def test_a_revision_is_a_branch(hub, packed):
    arguments = ["upload", "--folder", str(packed), "--repo", NAME]
    command.main([*arguments, "--revision", "v1"])  # the repository is new too
    repo = hub.repos[NAME]
    assert set(repo.branches) == {"main", "v1"} and hub.files(NAME) == {}
    first = repo.branches["v1"]
    assert set(hub.files(NAME, "v1")) == FILES
    card = hub.files(NAME, "v1")["README.md"].decode()
    assert f'from_pretrained("{NAME}@v1")' in card
    publish(packed, NAME)
    (packed / "extra.yaml").write_text("a: 1\n")
    write_checksums(packed)
    assert publish(packed, NAME, revision="v2") == f"{hub.url}/{NAME}/tree/v2"
    assert set(hub.files(NAME, "v2")) == FILES | {"extra.yaml"}
    assert set(hub.files(NAME)) == FILES and repo.branches["v1"] == first
    (packed / "extra.yaml").unlink()
    write_checksums(packed)
    publish(packed, NAME, revision="v2")  # is there by now
    assert set(hub.files(NAME, "v2")) == FILES


def test_a_branch_of_something_else(hub, packed):
    api = HfApi()
    api.create_repo(NAME)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=NAME)
    with pytest.raises(FileExistsError, match=r"found x\.txt"):
        publish(packed, NAME, revision="v1")
    assert set(hub.repos[NAME].branches) == {"main"}  # nothing was made
    api.create_branch(NAME, branch="notes")
    publish(packed, NAME, exist_ok=True)
    with pytest.raises(FileExistsError, match=r"found x\.txt"):
        publish(packed, NAME, revision="notes")


def test_a_cut_upload_goes_on(hub, packed, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's attempts
    (packed / "more.safetensors").write_bytes(b"\1" * 200_000)
    write_checksums(packed)
    hub.cut_uploads = [None, *[1000] * 20]  # the second blob never arrives
    with pytest.raises(ConnectionError, match=f"{NAME}: expected to upload.*run again"):
        publish(packed, NAME)
    assert hub.files(NAME) == {}  # nobody pulls half of it
    assert puts(hub) == 1
    hub.cut_uploads = []
    publish(packed, NAME)
    assert puts(hub) == 1  # the other one
    assert set(hub.files(NAME)) == FILES | {"more.safetensors"}


def test_tokens_and_rights(hub, packed, monkeypatch):
    with pytest.raises(PermissionError, match=f"{NAME}: .*accept the token.*hf auth"):
        publish(packed, NAME, token="hf_wrong")
    with pytest.raises(PermissionError, match="else/tiny: .*that you may write to"):
        publish(packed, "else/tiny")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="HF_TOKEN"):
        publish(packed, NAME)
    assert not hub.repos


def test_no_network(hub, packed):
    hub.shutdown()
    hub.server_close()
    close_session()
    with pytest.raises(ConnectionError, match=f"{NAME}.*HF_ENDPOINT.*run again"):
        publish(packed, NAME)


def test_dry_run_shows_and_contacts_nobody(packed, tmp_path):
    (packed / "notes.txt").write_text("mine")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.settimeout(0.05)
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "espnet_ofa.bin.publish", "upload", "--dry_run"]
            + ["--folder", str(packed), "--repo", NAME],
            env={"HF_ENDPOINT": url, "HOME": str(tmp_path), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
        )
        with pytest.raises(TimeoutError):
            nobody.accept()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{packed} -> {url}/{NAME}"
    shown = {line.split()[1]: line.split()[0] for line in lines[1 : 1 + len(FILES)]}
    assert set(shown) == FILES
    for name, size in shown.items():
        assert int(size.replace(",", "")) == (packed / name).stat().st_size
    assert lines[-1] == "  left out, as it was not packed: notes.txt"
    plan = "\n".join(lines[1 + len(FILES) :])
    assert "branch main" in plan and "public if it is made" in plan
    assert "deleted there: files of an earlier package" in plan
    assert f'from_pretrained("{NAME}")' in plan and "USER/NAME" not in plan


def test_only_what_was_packed(packed, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: expected a packed folder"):
        publish(tmp_path / "nothing", NAME)
    with pytest.raises(ValueError, match="'tiny': expected a repository as user/name"):
        publish(packed, "tiny")
    weights = packed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors: expected \d+ bytes"):
        publish(packed, NAME, dry_run=True)


def test_secrets_stay(packed):
    assert set(packed_files(packed)) == FILES
    card = packed / "README.md"
    card.write_text(card.read_text() + "\n    HF_TOKEN=hf_" + "aB3" * 12 + "\n")
    with pytest.raises(ValueError, match=r"README\.md of .*: line \d+ holds what"):
        packed_files(packed)


KEY = "aB3" * 12


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", f"github_pat_{KEY}"),
        ("notes", f"see gho_{KEY} there"),
        ("run.sh", f"export GL=glpat-{KEY}"),
        ("a.py", f"'sk-proj-{KEY}'"),
        ("b.yaml", f"wandb:\n  api_key: {KEY}\n"),
        ("c.json", f'{{"Password": "{KEY}"}}'),
        ("run.log", f"train --hub_token {KEY}"),
        ("d.yaml", f"token_list: [hf_{KEY}]"),
        ("e.csv", "-----BEGIN RSA PRIVATE KEY-----"),
        ("f.txt", f"aws_secret_access_key = {'k/' * 20}"),
        ("g.txt", f"aws_secret {'k+' * 20}"),
        ("h.json", '{"access_key": "k1"}'),
        ("i.log", "git clone https://me:pw@host.org/x"),
        ("j.txt", "Authorization: Bearer x"),
        ("k.yaml", "db:\n  password: abc\n"),
        ("l.txt", "PASSWORD='abc'"),
        ("m.log", "train --password abc"),
        ("n.txt", f"xoxb-{KEY}"),
        ("o.txt", f"AIza{KEY[:35]}"),
        ("p.txt", f"ASIA{'A1' * 8}"),
        ("q.yaml", f"token_list: [AKIA{'A1' * 8}]"),
        ("r.vocab", f"xoxp-{KEY}"),
        ("s.html", "<p>" * 1_700_000 + "\npassword: abc"),
    ],
)
def test_secrets_of_every_kind_stay(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    for encoding in ("utf-8", "utf-16") if name.endswith("t") else ("utf-8",):
        (tmp_path / name).write_text(text, encoding=encoding)
        with pytest.raises(
            ValueError, match=f"{name} of .*: .* holds what looks"
        ) as refused:
            refuse_secrets(tmp_path)
        assert KEY not in str(refused.value)


def test_what_is_not_utf8_is_searched(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"\xe9t\xe9\npassword: \xe9\n")
    with pytest.raises(ValueError, match=r"notes\.txt of .*: line 2 holds"):
        refuse_secrets(tmp_path)


def test_what_only_looks_like_a_secret(tmp_path, caplog):
    config = {"password": None, "secret": "", "token": "bpe", "token_type": "word"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"deep": config}))
    (tmp_path / "run.log").write_text(
        "train --hub_token $HF_TOKEN --password ${PASSWORD} --api_key <yours>\n"
        "curl -H 'Authorization: Bearer $TOKEN' https://me:$PW@host https://x.org:80/a@b\n"
        "the secret is out, the password forgotten; tokens: 12 per second\n"
        "--token_list data/en_token_list/bpe_unigram200/tokens.txt secretary: Jane\n"
    )
    (tmp_path / "model.pth").write_bytes(b"password: abc")
    with caplog.at_level("INFO"):
        refuse_secrets(tmp_path)
    assert "not searched for secrets, as not text: model.pth" in caplog.text


def test_a_vocabulary_is_no_secret(tmp_path):
    tokens = [
        "secret:abcdefghijklmnop",
        "password=1234567890123456",
        "token: 0123456789",
        *("password", "token", "Authorization: Bearer x", "https://me:pw@host"),
    ]
    config = {
        "token_list": tokens,
        "token_type": "bpe",
        "bpemodel": "x/bpe_model.model",
    }
    text = yaml.safe_dump(config)
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "bpe.model").write_text("\n".join(tokens))
    config = {"token_list": tokens, "token_type": "bpe", "bpemodel": "bpe.model"}
    card = task_card("tiny", config, (), (), 1, None, About())
    (tmp_path / "README.md").write_text(card)
    run = (
        "train --token_list data/token_list/bpe_unigram300/tokens.txt --token_type bpe"
    )
    (tmp_path / "run.sh").write_text(run)
    (tmp_path / "weights.pth").write_bytes(b"\xff" + b"secret: " + b"x" * 20)
    refuse_secrets(tmp_path)


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ("license: [1]", '"license" must be one of'),
        ("license: cc-by", '"license" must be one of'),
        ("license: mit\nlanguage: English", "English"),
        ("license: mit\ndatasets: [My own]", 'datasets.0.".*My own'),
    ],
)
def test_a_card_that_the_hub_refuses(hub, packed, edit, found):
    card = packed / "README.md"
    text = re.sub(r"(?m)^language: .*\n", "", card.read_text())
    card.write_text(text.replace("license: unknown", edit))
    message = rf"README\.md: the hub does not accept.*{found}"
    with pytest.raises(ValueError, match=message):
        publish(packed, NAME)
    assert not hub.repos and not puts(hub)


def test_a_card_that_nobody_can_read(packed):
    card = packed / "README.md"
    whole = card.read_text()
    for edit in ("license: [", "model-index: [{name: x}]\nlicense: mit"):
        card.write_text(whole.replace("license: unknown", edit))
        with pytest.raises(ValueError, match=r"README\.md: expected metadata for"):
            publish(packed, NAME, dry_run=True)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../b", "."])
def test_nothing_outside_of_the_folder(packed, name):
    (packed.parent / "secret").write_text("mine")
    path = packed / "checksums.json"
    listed = json.loads(path.read_text())
    entry = {"sha256": hashlib.sha256(b"mine").hexdigest(), "bytes": 4}
    path.write_text(json.dumps({"files": {**listed["files"], name: entry}}))
    for refuse in (packed_files, verify):
        with pytest.raises(ValueError, match="expected names of files in its folder"):
            refuse(packed)


def test_links_are_not_followed(packed):
    (packed / "deep").mkdir()
    (packed / "deep/a.txt").write_text("in the package")
    write_checksums(packed)
    assert "deep/a.txt" in packed_files(packed)
    (packed / "deep").rename(packed.parent / "deep")
    (packed / "deep").symlink_to(packed.parent / "deep")
    with pytest.raises(ValueError, match="expected files, found links: deep. What"):
        packed_files(packed)
    (packed / "deep").unlink()
    write_checksums(packed)
    weights = (packed / "model.safetensors").rename(packed.parent / "weights")
    (packed / "model.safetensors").symlink_to(weights)
    assert verify(packed)  # as the hub's client keeps its downloads
    with pytest.raises(ValueError, match="found links: model.safetensors"):
        packed_files(packed)


def test_checksums_are_published_as_packed(hub, packed):
    publish(packed, NAME)
    listed = json.loads(hub.files(NAME)["checksums.json"])["files"]
    assert set(listed) == FILES - {"README.md", "checksums.json"}
