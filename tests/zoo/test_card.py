"""What a model card says, from what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from hub_card import card_errors
from huggingface_hub import ModelCard

from espnet_ofa.report.scoring import Score
from espnet_ofa.report.stats import DecodeStats
from espnet_ofa.report.tradeoff import Row
from espnet_ofa.zoo.card import About, LearnedLam, task_card, upstream_card
from espnet_ofa.zoo.usage import cls_use

CONFIG = {"frontend_conf": {"fs": "16k"}, "decoder": None, "token_list": ["a", "```"]}
GREEDY = {"search": "greedy", "device": "a phone"}
BEAM = {"search": "beam", "beam_size": 3, "ctc_weight": 0.7, "maxlenratio": -90.0}


def row(lam: float | None, errors: int, setup: dict | None = None, **fields) -> Row:
    """Ten words, some of them wrong."""
    stats = DecodeStats(
        "test",
        lam=lam,
        utterances=5,
        units=100,
        frames=200,
        frame_seconds=4.0,
        audio_seconds=4.0,
        macs=1e9,
        macs_seconds=1.0,
        infeasible=0,
        setup=GREEDY if setup is None else setup,
    )
    for name, value in fields.items():
        setattr(stats, name, value)
    score = Score(5, 10, 10 - errors, errors, 0, 0, wrong_sentences=errors)
    return Row("ctc", stats, {"wer": score, "cer": score})


def card(rows=(), learned=(), config=None, about=None) -> ModelCard:
    about = about or About(datasets=("an4",))
    text = task_card("tiny", config or CONFIG, rows, learned, 10**6, None, about)
    return ModelCard(text)


def test_metadata_is_read_back_by_the_hub_s_own_parser():
    data = card([row(0.0, 2), row(1.0, 3)]).data.to_dict()
    assert data["datasets"] == ["an4"] and data["metrics"] == ["wer", "cer"]
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"] == {"name": "an4 test", "type": "an4", "split": "test"}
    values = {m["name"]: m["value"] for m in result["metrics"]}
    assert values == {"WER (%) at lambda 0": 20.0, "WER (%) at lambda 1": 30.0}


def test_the_hub_s_checks_accept_every_card():
    rows = [row(0.0, 2), row(0.5, 1), row(None, 1), row(0.0, 3, test_set="other")]
    rows[2] = replace(rows[2], stats=replace(rows[2].stats, squeeze="2,1,2"))
    several = About(datasets=("an4", "user/x"), license="cc-by-nc-4.0", language=None)
    cards = [card(rows), card(rows, about=several), card()]
    cards += [ModelCard(upstream_card("ssl", {}, None, 1, About(), onnx=True))]
    for made in cards:
        assert list(card_errors(made.data.to_dict())) == []
    results = cards[0].data.eval_results
    assert {r.dataset_split: r.dataset_type for r in results} == {
        "test": "an4",
        "other": "an4",
    }
    names = [r.metric_name for r in results]
    assert names[2] == "WER (%) at squeeze 2,1,2" and results[1].metric_value == 10.0
    # Of several corpora, which one a test set is of is not known.
    assert {r.dataset_type for r in cards[1].data.eval_results} == {"unknown"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"license": "CC-BY-4.0"},
        {"license": None},
        {"language": "English"},
        {"datasets": ["Libri Speech"]},
        {"datasets": [None]},
        {"tags": "speech"},
        {"pipeline_tag": "speech-recognition"},
        {"model-index": [{"name": "x", "results": [{"task": {"type": "y"}}]}]},
        "text",
    ],
)
def test_the_hub_s_checks_can_fail(metadata):
    assert list(card_errors(metadata))


def test_what_the_hub_would_refuse_is_not_packed():
    for name in ("CC BY 4.0", "cc-by"):
        message = f"licence '{name}': expected the hub's .*cc-by-4.0.*--license_name"
        with pytest.raises(ValueError, match=message):
            About(license=name)
    with pytest.raises(ValueError, match="'Mine' goes with licence other, found mit"):
        About(license="mit", license_name="Mine")
    with pytest.raises(ValueError, match="dataset 'Libri Speech': expected an id"):
        About(datasets=("an4", "Libri Speech"))


def test_without_results_none_are_told():
    made = card(about=About(language=None))
    data = made.data.to_dict()
    assert not {"model-index", "metrics", "datasets", "language"} & data.keys()
    assert "Not decoded before it was packed" in made.content
    assert "command: not recorded" in made.content


def test_the_snippet_decodes_as_measured():
    text = card([row(0.3, 2), row(0.7, 1)]).content
    assert 'from_pretrained("USER/NAME", beam_size=1, ctc_weight=1.0)' in text
    assert "set_lam(speech2text.asr_model, 0.7)" in text  # the best
    config = {**CONFIG, "decoder": "rnn"}
    text = card([row(0.3, 2, BEAM)], config=config).content
    assert '"USER/NAME", beam_size=3, ctc_weight=0.7)' in text
    text = card([row(0.3, 2, {**BEAM, "ctc_weight": 0.0})], config=config).content
    assert '"USER/NAME", beam_size=3, ctc_weight=0.0, maxlenratio=-90.0)' in text


def test_the_command_is_that_of_the_results():
    text = card([row(0.3, 2), row(0.7, 1)]).content
    start = "python -m espnet_ofa.bin.asr_inference --model_tag USER/NAME"
    assert start in text and "data/test --lam 0.7 \\\n    --search greedy\n" in text
    assert "goes by prefixes" in text
    config = {**CONFIG, "decoder": "rnn"}
    text = card([row(0.3, 2, BEAM)], config=config).content
    search = "--beam_size 3 --ctc_weight 0.7 --maxlenratio -90.0"
    assert f"--lam 0.3 \\\n    {search}\n" in text and "prefixes" not in text
    assert "--beam_size 5 --maxlenratio -200" in card(config=config).content


def test_a_decoder_that_is_not_built_is_not_searched_with():
    config = {**CONFIG, "decoder": "transformer", "model_conf": {"ctc_weight": 1.0}}
    text = card(config=config).content
    assert "--search greedy" in text and "beam_size=1, ctc_weight=1.0)" in text
    config["model_conf"] = {"ctc_weight": 0.3}
    assert "--search greedy" not in card(config=config).content


def test_each_way_of_decoding_says_whose_it_is():
    other = replace(row(0.7, 1, {**BEAM, "minlenratio": 0.1}), system="beam")
    text = card([row(0.3, 2), other]).content
    search = "--beam_size 3 --ctc_weight 0.7 --maxlenratio -90.0 --minlenratio 0.1"
    assert f"--lam 0.7 \\\n    {search}\n" in text and "goes by prefixes" not in text
    assert '", beam_size=3, ctc_weight=0.7, minlenratio=0.1)' in text
    assert "\nctc: decoded with search greedy, device a phone.\n" in text
    assert "\nbeam: decoded with search beam, beam_size 3," in text
    text = card([row(0.3, 2), replace(other, system="ctc")]).content
    assert "\nctc (test at lambda 0.3): decoded with search greedy" in text


def test_lambda_is_exact():
    text = card([row(0.4593, 1)]).content
    assert "--lam 0.4593 " in text and "asr_model, 0.4593)" in text
    text = card([row(0.3, 2), row(0.4593, 1, adaptive=True)]).content
    assert "--lam own " in text and "set_lam" not in text
    assert "set_lam" in card([row(0.3, 1), row(0.4593, 2, adaptive=True)]).content
    text = card(learned=[LearnedLam("encoder", 0.4593, 0.5, False)]).content
    assert "--lam own " in text and "set_lam" not in text


def test_no_lambda_where_there_is_none():
    squeezed = row(None, 1, squeeze="2,1,2")
    for rows in ([squeezed], []):
        text = task_card("x", CONFIG, rows, (), 1, None, About(), has_lam=False)
        assert "set_lam" not in text and "--lam" not in text
        assert ("--squeeze 2,1,2" in text) == bool(rows)
        assert ('set_squeeze(speech2text.asr_model, "2,1,2")' in text) == bool(rows)
        assert ("import set_squeeze" in text) == bool(rows)
        text = cls_use(rows, learned=False, has_lam=False)
        call = 'set_squeeze(classifier.classification_model, "2,1,2")'
        assert (call in text) == ("import set_squeeze" in text) == bool(rows)
        assert "lam=" not in text


def test_what_espnet_compares_is_told():
    assert "So does ESPnet's own way" not in card().content
    config = {**CONFIG, "encoder": "ofa"}
    assert "So does ESPnet's own way" in card(config=config).content


def test_a_licence_without_a_name_on_the_hub():
    made = card(about=About(license="other", license_name="Mine 1"))
    data = made.data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "Mine 1")
    assert list(card_errors(data)) == [] and "weights: Mine 1" in made.content


def test_limits_are_those_that_were_met():
    text = card([row(0.5, 1, infeasible=2, capped=1, too_short=3)]).content
    at = "Of 5 utterances of test at lambda 0.5"
    assert f"{at}, 2 have too few units for CTC." in text
    assert f"{at}, 3 are too short" in text and f"{at}, 1 ran into" in text
    assert "16000 Hz" in text and "speech like that of an4" in text
    assert "too few units" not in card([row(0.5, 1)]).content


def test_a_learned_lambda_is_told():
    text = card(learned=[LearnedLam("encoder", 0.61234, 0.5, False)]).content
    assert "encoder was learned with the weights: 0.6123, from 0.5" in text
    text = card(learned=[LearnedLam("encoder", 0.61234, 0.5, True)]).content
    assert "encoder was learned alone, while all weights stayed: 0.6123" in text


def test_the_config_survives_its_fence():
    text = card().content
    block = text.split("````yaml\n")[1].split("\n````\n")[0]
    assert yaml.safe_load(block) == CONFIG


@pytest.mark.parametrize("facts", [None, {"target_period_ms": 90.0}])
def test_upstream(facts):
    if facts is not None:
        facts["measured"] = [{"lam": 1, "period_ms": 60.0}]
    text = upstream_card("ssl", {"dim": 8}, facts, 2_000_000, About(command="x --y"))
    made = ModelCard(text)
    assert made.data.to_dict()["pipeline_tag"] == "feature-extraction"
    assert 'OFAUpstream.from_pretrained("USER/NAME")' in made.content
    assert ("not measured" in made.content) == (facts is None)
    assert ("WARNING" in made.content) == (facts is not None)  # 60 is not 90
    assert "```sh\nx --y\n```" in made.content
    assert "model.onnx" not in made.content and "onnx" not in made.data.tags
    made = ModelCard(upstream_card("ssl", {}, facts, 1, About(), onnx=True))
    assert "`model.onnx`" in made.content and "onnx" in made.data.tags
