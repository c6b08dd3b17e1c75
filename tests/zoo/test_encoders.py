"""Encoders of others, by hub id."""

import json

import pytest
import torch
from huggingface_hub import HfApi

from espnet_ofa.bin import import_upstream
from espnet_ofa.pretrain.teacher import load_teacher
from espnet_ofa.upstream import OFAUpstream, UpstreamConfig
from espnet_ofa.upstream.importers.source import their_names

CONF = {
    "model_type": "hubert",
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture
def published(hub, tmp_path):
    """A HuBERT on the hub as many are there: weights in the older form only."""
    config = UpstreamConfig(
        extractor_conf={"dim": 8},
        compressor="none",
        dim=16,
        layers=2,
        heads=2,
        ff_dim=24,
        pos_kernel=6,
        pos_groups=2,
    )
    upstream = OFAUpstream(config).eval()
    state = {}
    for name, value in upstream.state_dict().items():
        if not name.startswith("policy."):
            theirs = their_names(name)
            state |= zip(theirs, value.chunk(len(theirs)), strict=True)
    folder = tmp_path / "hubert"
    folder.mkdir()
    torch.save({k: v.clone() for k, v in state.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONF))
    (folder / "tf_model.h5").write_bytes(b"never asked for")
    api = HfApi()
    api.create_repo("user/hubert")
    api.upload_folder(repo_id="user/hubert", folder_path=folder)
    hub.requests.clear()
    return hub, upstream


def test_a_hub_id_teaches_and_becomes_an_upstream(published, tmp_path):
    hub, upstream = published
    wave, lengths = torch.randn(1, 8000), torch.tensor([8000])
    wanted = upstream(wave, lengths).hidden_states[-1]
    states, _ = load_teacher("user/hubert")(wave, lengths, [2])
    torch.testing.assert_close(states[:, :, 0], wanted)
    options = ["--source", "user/hubert", "--output_dir", str(tmp_path / "up")]
    import_upstream.main(options)
    mine = OFAUpstream.from_pretrained(tmp_path / "up")
    torch.testing.assert_close(mine(wave, lam=0.0).hidden_states[-1], wanted)
    fetched = {path for method, path, *_ in hub.requests if method == "GET"}
    assert any("pytorch_model.bin" in path for path in fetched)
    assert not any("tf_model" in path for path in fetched)
    with pytest.raises(FileNotFoundError, match="user/wavlm"):
        load_teacher("user/wavlm")
