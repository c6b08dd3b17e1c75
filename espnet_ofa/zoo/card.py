"""The model card: what a stranger must know, written from the run itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from espnet_ofa.report.accuracy import accuracy_table
from espnet_ofa.report.tables import lambda_table, ssl_section
from espnet_ofa.report.tradeoff import Row
from espnet_ofa.upstream.extractor import frontend_rate
from espnet_ofa.zoo.fetches import find_fetches
from espnet_ofa.zoo.licenses import LICENSES
from espnet_ofa.zoo.usage import REPO, asr_use, cls_use, python, shell

ONNX_NAME = "model.onnx"
CLASSIFICATION = "audio-classification"  # as the hub calls it
UNKNOWN_LICENSE = "unknown"  # the hub knows it by this name

_LINKS = (
    "Made with [ESPnet](https://github.com/espnet/espnet) and its plugin espnet_ofa: "
    "one encoder for every frame period from 20 ms to 90 ms and beyond. Lambda, a "
    "single number, sets how many frames go into one unit: 0 keeps them all, 1 keeps "
    "as few as alpha, the learned weights, asks for."
)
_COSTS = (
    "Frame period, units and real-time factor (RTF) are measured on the test set; MACs "
    "are those of the encoder, frontend included, per second of audio."
)
_ERRORS = {"wer": "Word error rate", "per": "Phone error rate"}


@dataclass(frozen=True)
class About:
    """What a run does not know of itself.

    Attributes:
        license: of the weights, as the hub names it; ``unknown`` until somebody who
            may decides: the weights may have begun as those of others.
        license_name: where the hub has no name for it, and ``license`` is ``other``.
        datasets: corpora, by their hub ids where they have one.
        language: ISO code; None leaves it out.
        command: that trained the model; by default the head of ``train.log``.

    Raises:
        ValueError: a licence or dataset that is written as the hub never does.
    """

    license: str = UNKNOWN_LICENSE
    license_name: str | None = None
    datasets: tuple[str, ...] = ()
    language: str | None = "en"
    command: str | None = None

    def __post_init__(self) -> None:
        if self.license not in LICENSES:
            near = get_close_matches(self.license.lower(), LICENSES, 3, 0.5)
            raise ValueError(
                f"licence {self.license!r}: expected the hub's name for it, such as "
                f"{', '.join(near or ['cc-by-4.0'])}; or unknown; or other, with "
                "--license_name"
            )
        if self.license_name is not None and self.license != "other":
            raise ValueError(
                f"licence name {self.license_name!r} goes with licence other, found "
                f"{self.license}; leave one of them out"
            )
        for corpus in self.datasets:
            if not re.fullmatch(r"([\w-]+/)?[\w.-]+", corpus):
                raise ValueError(
                    f"dataset {corpus!r}: expected an id as the hub has them, name or "
                    "user/name without blanks, such as librispeech_asr"
                )


@dataclass(frozen=True)
class LearnedLam:
    """A lambda that training settled.

    Attributes:
        role: ``frontend``, ``preencoder`` or ``encoder``.
        value: as the checkpoint has it.
        start: where training began.
        alone: whether all weights stayed as they were.
    """

    role: str
    value: float
    start: float
    alone: bool


def task_card(
    name: str,
    config: Mapping[str, Any],
    rows: Sequence[Row],
    learned: Sequence[LearnedLam],
    parameters: int,
    report: Path | None,
    about: About,
    *,
    classes: bool = False,
    has_lam: bool = True,
) -> str:
    """Card of a recogniser, or of a classifier of utterances.

    Args:
        name: of the model.
        config: the packed ``config.yaml``.
        rows: its results, by test set, then lambda; may be empty.
        learned: lambdas that training settled.
        parameters: how many.
        report: folder of ``report.md`` and pictures beside the card, if there is one.
        about: what the run does not know.
        classes: it is a classifier.
        has_lam: whether it compresses by lambda.
    """
    if classes:
        what, task = "Classifier of utterances.", CLASSIFICATION
        use = cls_use(rows, bool(learned), has_lam)
    else:
        what, task = "Speech recogniser.", "automatic-speech-recognition"
        use = asr_use(config, rows, bool(learned), has_lam)
    results = ["Not decoded before it was packed."]
    if rows:
        scores = _accuracies(rows) if classes else _errors(rows)
        results = [*scores, *_pictures(report), *_setups(rows)]
    for lam in learned:
        how = "alone, while all weights stayed" if lam.alone else "with the weights"
        results.append(
            f"Lambda of the {lam.role} was learned {how}: {lam.value:.4f}, from "
            f"{lam.start:g} at the start of training."
        )
    sections = {
        "Use": use,
        "Results": "\n\n".join(results),
        "Training": _training(config.get("version"), parameters, about),
        "Limits": _bullets(_limits(config, rows, about)),
    }
    return _card(_metadata(name, task, rows, about), name, what, sections, config)


def _errors(rows: Sequence[Row]) -> list[str]:
    return [
        f"{_ERRORS[rows[0].metric]} and measured cost at each lambda. {_COSTS} "
        "Capped are hypotheses that were cut off at the length limit, infeasible "
        "are utterances with fewer units than CTC needs for their reference.",
        lambda_table(rows),
    ]


def _accuracies(rows: Sequence[Row]) -> list[str]:
    told = f"Accuracy and measured cost at each lambda. {_COSTS}"
    return [told, accuracy_table(rows)]


def upstream_card(
    name: str,
    config: Mapping[str, Any],
    facts: Mapping[str, object] | None,
    parameters: int,
    about: About,
    *,
    onnx: bool = False,
) -> str:
    """Card of a pre-trained upstream.

    Args:
        name: of the model.
        config: of the upstream.
        facts: ``rate.json``, if there is one; see
            :func:`espnet_ofa.report.tables.ssl_section`.
        parameters: how many.
        about: what the run does not know.
        onnx: whether ``model.onnx`` is beside the card.
    """
    tags = ["onnx"] if onnx else []
    metadata = _metadata(name, "feature-extraction", (), about, tags)
    others = [
        "transformers: `import espnet_ofa.interop.transformers`, then "
        "`AutoModel.from_pretrained`, without `trust_remote_code`",
        "s3prl, and ESPnet's `frontend: s3prl`: the upstream `ofa_local`, expanded to "
        "one state every 20 ms; s3prl 0.4.18 itself does not load beside torchaudio "
        "2.11",
        "ESPnet's `frontend: ofa`, which hands on the units themselves",
    ]
    if onnx:
        others.append(
            f"without PyTorch: `espnet_ofa.zoo.onnx_runtime.OnnxUpstream` of "
            f"`{ONNX_NAME}`; lambda is an input of the file"
        )
    limits = [
        "Reads 16 kHz mono audio.",
        "Pre-trained without text: features, not transcripts.",
        *_data_limit(about),
    ]
    sections = {
        "Use": shell('pip install "espnet_ofa"')
        + "\n\n"
        + python(
            "import soundfile",
            "import torch",
            "from espnet_ofa import OFAUpstream",
            "",
            f'upstream = OFAUpstream.from_pretrained("{REPO}")',
            'speech, rate = soundfile.read("speech.wav", dtype="float32")  # 16 kHz',
            "wave = torch.from_numpy(speech)[None]",
            "out = upstream(wave, torch.tensor([len(speech)]), lam=0.6)",
            "print(out.hidden_states[-1].shape, out.period_ms)",
        )
        + f"\n\nIt also loads in\n\n{_bullets(others)}",
        "Results": "Frame period not measured."
        if facts is None
        else ssl_section(facts),
        "Training": _training(None, parameters, about),
        "Limits": _bullets(limits),
    }
    return _card(metadata, name, "Self-supervised speech encoder.", sections, config)


def _metadata(
    name: str, task: str, rows: Sequence[Row], about: About, tags: Sequence[str] = ()
) -> str:
    """The YAML that the hub reads."""
    # Of several corpora nobody knows here which one a test set is of.
    corpus = about.datasets[0] if len(about.datasets) == 1 else "unknown"
    classes = task == CLASSIFICATION
    results = [
        EvalResult(
            task_type=task,
            dataset_type=corpus,
            dataset_name=f"{corpus} {row.stats.test_set}",
            dataset_split=row.stats.test_set,
            metric_type="accuracy" if classes else row.metric,
            metric_name=f"{'Accuracy' if classes else row.metric.upper()} (%)"
            + _setting(row),
            metric_value=round(100 - row.wer if classes else row.wer, 2),
        )
        for row in rows
        if row.wer == row.wer
    ]
    data = ModelCardData(
        model_name=name if results else None,
        eval_results=results or None,
        language=about.language,
        license=about.license,
        license_name=about.license_name,
        library_name="espnet",
        pipeline_tag=task,
        tags=[
            *("espnet", "espnet_ofa", "audio", "speech", task, "sequence-compression"),
            *tags,
        ],
        datasets=list(about.datasets) or None,
        metrics=(["accuracy"] if classes else [*rows[0].scores]) if rows else None,
    )
    return data.to_yaml()


def _card(
    metadata: str,
    name: str,
    what: str,
    sections: Mapping[str, str],
    config: Mapping[str, Any],
) -> str:
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    # A token may be a row of backticks: the fence is longer than any of them.
    fence = "```"
    while fence in text:
        fence += "`"
    parts = [f"---\n{metadata.strip()}\n---", f"# {name}", f"{what} {_LINKS}"]
    parts += [f"## {title}\n\n{body}" for title, body in sections.items()]
    parts.append(
        "## Config\n\n<details><summary>config.yaml</summary>\n\n"
        f"{fence}yaml\n{text.strip()}\n{fence}\n\n</details>"
    )
    return "\n\n".join(parts) + "\n"


def _setting(row: Row) -> str:
    """At which lambda and squeeze a row was measured."""
    found = {"lambda": row.stats.lam, "squeeze": row.stats.squeeze}
    told = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in found.items()
        if value is not None
    ]
    return f" at {', '.join(told)}" if told else ""


def _pictures(report: Path | None) -> list[str]:
    plots = sorted(report.glob("*.png")) if report is not None else []
    alt = "errors against frame period and MACs"
    return [f"![{alt}]({plot.parent.name}/{plot.name})" for plot in plots]


def _setups(rows: Sequence[Row]) -> list[str]:
    """How it was decoded: systems, or rows where a system has several ways."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        setup = ", ".join(f"{k} {v}" for k, v in row.stats.setup.items())
        told = f"{row.stats.test_set}{_setting(row)}"
        found.setdefault(row.system, {}).setdefault(setup, []).append(told)
    lines = []
    for system, ways in found.items():
        for setup, told in ways.items():
            which = f" ({'; '.join(told)})" if len(ways) > 1 else ""
            lines.append(f"{system}{which}: decoded with {setup}.")
    return lines


def _training(version: object, parameters: int, about: About) -> str:
    lines = [
        f"- data: {', '.join(about.datasets) or 'not told'}",
        f"- parameters: {parameters / 1e6:.2f} M",
        f"- licence of the weights: {about.license_name or about.license}",
    ]
    if version:
        lines.append(f"- espnet {version}")
    if about.command is None:
        return "\n".join([*lines, "- command: not recorded; the config is below"])
    return "\n".join(lines) + f"\n\n```sh\n{about.command}\n```"


def _limits(config: Mapping[str, Any], rows: Sequence[Row], about: About) -> list[str]:
    rate = frontend_rate(config.get("frontend_conf"))
    limits = [
        f"Not self-contained: loading it makes `{part}` of the config below fetch a "
        "model from elsewhere, in its own way."
        for part in find_fetches(config)
    ]
    limits += [f"Reads mono audio at {rate} Hz.", *_data_limit(about)]
    periods = [row.stats.period_ms for row in rows]
    if periods:
        limits.append(
            f"Measured at frame periods from {min(periods):.0f} to {max(periods):.0f} "
            "ms; nobody knows what it does outside."
        )
        limits.append("RTF holds for the device named above.")
    for row in rows:
        stats = row.stats
        where = f"Of {stats.utterances} utterances of {stats.test_set}{_setting(row)}"
        if stats.infeasible:
            limits.append(f"{where}, {stats.infeasible} have too few units for CTC.")
        if stats.too_short:
            limits.append(f"{where}, {stats.too_short} are too short for the encoder.")
        if stats.capped:
            limits.append(f"{where}, {stats.capped} ran into the length limit.")
    return limits


def _data_limit(about: About) -> list[str]:
    if not about.datasets:
        return []
    corpora = ", ".join(about.datasets)
    return [f"Made for speech like that of {corpora}; other speech may fare far worse."]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
