"""Token lists: ESPnet's layout, and errors that name the limits."""

from __future__ import annotations

import pytest
import sentencepiece

from espnet_ofa.data.tokens import char_tokens, read_texts, train_bpe

TEXTS = [
    f"{verb} THE {colour} {thing} AT {hour}"
    for verb in ("OPEN", "SHUT", "PAINT")
    for colour in ("RED", "BLUE", "GREEN")
    for thing in ("DOOR", "WINDOW", "GATE")
    for hour in ("SEVEN", "ELEVEN", "TWENTY TWO", "NOON", "MIDNIGHT")
]


def test_char_layout():
    tokens = char_tokens(["AB A", "A <noise> C"], nlsyms=["<noise>"])
    assert tokens[:4] == ["<blank>", "<unk>", "A", "<space>"]
    assert tokens[-1] == "<sos/eos>"
    assert sorted(tokens[4:-1]) == ["<noise>", "B", "C"]


def test_char_order_is_espnets():
    """What ``espnet2.bin.tokenize_text --write_vocabulary true`` writes for this text.

    Falling frequency; ties in the order of first occurrence.
    """
    tokens = char_tokens(["ZOE SAW A ZOO", "A BEE SAW ZOE"])
    assert " ".join(tokens) == "<blank> <unk> <space> O E A Z S W B <sos/eos>"


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_bpe_list_belongs_to_its_model(tmp_path, mode):
    model = tmp_path / "bpe.model"
    tokens = train_bpe(TEXTS, model, vocab_size=34, mode=mode)
    assert len(tokens) == 34 and len(set(tokens)) == 34
    assert (tokens[0], tokens[1], tokens[-1]) == ("<blank>", "<unk>", "<sos/eos>")
    assert not {"<s>", "</s>"} & set(tokens)
    processor = sentencepiece.SentencePieceProcessor()
    processor.Load(str(model))
    for text in TEXTS:
        pieces = processor.EncodeAsPieces(text)
        assert set(pieces) <= set(tokens[2:-1])
        assert processor.DecodePieces(pieces) == text
    assert train_bpe(TEXTS, tmp_path / "b.model", vocab_size=34, mode=mode) == tokens
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bpe.model", "bpe.vocab", "b.model", "b.vocab"}


def test_bpe_symbols_are_not_split(tmp_path):
    texts = [f"{text} <noise>" for text in TEXTS]
    tokens = train_bpe(texts, tmp_path / "bpe.model", vocab_size=34, nlsyms=["<noise>"])
    assert "<noise>" in tokens


def test_too_many_tokens_names_the_maximum(tmp_path):
    model = tmp_path / "bpe.model"
    with pytest.raises(
        ValueError, match=r"--nbpe 5000 is too large .* maximum is"
    ) as e:
        train_bpe(TEXTS, model, vocab_size=5000, mode="bpe")
    maximum = int(str(e.value).split("maximum is ")[1].split(";")[0])
    assert len(train_bpe(TEXTS, model, vocab_size=maximum, mode="bpe")) == maximum


def test_little_text_gives_fewer_tokens(tmp_path, caplog):
    tokens = train_bpe(TEXTS, tmp_path / "bpe.model", vocab_size=5000)
    assert 10 < len(tokens) < 5000
    assert f"{len(tokens)} pieces" in caplog.text


def test_too_few_tokens_names_the_minimum(tmp_path):
    model = tmp_path / "bpe.model"
    with pytest.raises(ValueError, match=r"--nbpe 9 is too small.* minimum is") as e:
        train_bpe(TEXTS, model, vocab_size=9)
    minimum = int(str(e.value).split("minimum is ")[1])
    assert len(train_bpe(TEXTS, model, vocab_size=minimum)) == minimum
    with pytest.raises(ValueError, match="too small"):
        train_bpe(TEXTS, model, vocab_size=minimum - 1)


def test_no_text_at_all(tmp_path):
    (tmp_path / "text").write_text("a\nb\n")
    with pytest.raises(ValueError, match="text: no transcripts"):
        read_texts([tmp_path / "text"])
