"""What a model card says of using a model: commands and code that run as shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_ofa.report.tradeoff import Row

REPO = "USER/NAME"  # publishing puts the repository's name in its place

# Arguments of ESPnet's Speech2Text that decide what its search finds.
_SEARCH = ("beam_size", "ctc_weight", "penalty", "maxlenratio", "minlenratio")
# What a setup has although nobody asked for it; the device is no option.
_USUAL = {"batch_size": 1, "dtype": "float32"}
_NO_OPTION = ("search", "device")


def only_ctc(config: Mapping[str, Any]) -> bool:
    """Whether a recogniser decodes by CTC alone, as ESPnet's model decides it."""
    decoder = config.get("decoder")
    weight = (config.get("model_conf") or {}).get("ctc_weight")
    return decoder is None or (decoder != "transducer" and weight == 1.0)


def asr_use(
    config: Mapping[str, Any],
    rows: Sequence[Row],
    learned: bool,
    has_lam: bool,
) -> str:
    """How to decode: as the results were got, and in Python.

    Args:
        config: the packed ``config.yaml``.
        rows: results, which say how and where lambda or squeeze did best.
        learned: training settled lambda.
        has_lam: there is one.
    """
    best = min(rows, key=lambda row: row.wer).stats if rows else None
    setup: Mapping[str, object] = {} if best is None else best.setup
    # The learned one has digits that nobody would type.
    own = learned if best is None else best.adaptive
    lam = None if own or not has_lam else 0.5 if best is None else best.lam
    squeeze = None if best is None else best.squeeze

    alone = only_ctc(config)
    greedy = setup.get("search", "greedy" if alone else "beam") == "greedy"
    given = {
        name: value
        for name, value in setup.items()
        if name not in _NO_OPTION and value != _USUAL.get(name)
    }
    if not (greedy or given):
        given = {"beam_size": 5, "maxlenratio": -200}
    options_of = [f"--{name} {_value(value)}" for name, value in given.items()]
    search = " ".join(["--search greedy"] * greedy + options_of)
    knobs = " --lam own" if own else "" if lam is None else f" --lam {lam!r}"
    knobs += "" if squeeze is None else f" --squeeze {squeeze}"
    files = "`data/test` holds `wav.scp`, a name and an audio file in each line"
    by_prefix = ", which goes by prefixes, so that a few words may differ"
    parts = [
        # With espnet_model_zoo, which ESPnet's own loading needs.
        shell('pip install "espnet_ofa[espnet]"'),
        f"{'As for the results below' if rows else 'On the command line'} ({files}, "
        "and, to be scored, `text`):",
        shell(
            f"python -m espnet_ofa.bin.asr_inference --model_tag {REPO} \\",
            f"    --output_dir decoded --test_set test:data/test{knobs} \\",
            f"    {search}",
        ),
        "In Python, with ESPnet's own search" + by_prefix * greedy + ":",
    ]
    options: dict[str, object] = {"beam_size": 5}
    if alone:
        options = {"beam_size": 1, "ctc_weight": 1.0}
    if setup.get("search") == "beam":
        options = {name: setup[name] for name in _SEARCH if name in setup}
        # With CTC, ESPnet's own search fails where a constant bound exceeds the units;
        # its default, as many tokens as units, is what CTC allows anyway.
        if options.get("ctc_weight") != 0:
            options.pop("maxlenratio", None)
    arguments = "".join(f", {name}={value}" for name, value in options.items())
    imports, sets = [], []
    if lam is not None:
        told = "without it: the learned one" if learned else "0: exact; 1: shortest"
        imports.append("set_lam")
        sets.append(f"set_lam(speech2text.asr_model, {lam!r})  # {told}")
    if squeeze is not None:
        imports.append("set_squeeze")
        sets.append(f'set_squeeze(speech2text.asr_model, "{squeeze}")')
    parts.append(
        python(
            "import soundfile",
            "from espnet2.bin.asr_inference import Speech2Text",
            *([f"from espnet_ofa import {', '.join(imports)}"] if imports else []),
            "",
            f'speech2text = Speech2Text.from_pretrained("{REPO}"{arguments})',
            *sets,
            'speech, rate = soundfile.read("speech.wav")  # 16 kHz, mono',
            "text, *_ = speech2text(speech)[0]",
            "print(text)",
        )
    )
    ours = "ofa" in (config.get(role) for role in ("frontend", "preencoder", "encoder"))
    parts.append(
        f'`espnet_ofa.zoo.pull.load_asr("{REPO}"{arguments})` gives the same: it reads '
        "safetensors, where ESPnet 202511 unpickles a checkpoint, and refuses a "
        "truncated or altered download."
        + (" So does ESPnet's own way here, by `checksums.json`." * ours)
    )
    return "\n\n".join(parts)


def cls_use(rows: Sequence[Row], learned: bool, has_lam: bool) -> str:
    """How to classify in Python.

    Args:
        rows: results, which say at which lambda or squeeze it did best.
        learned: training settled lambda.
        has_lam: there is one.
    """
    best = min(rows, key=lambda row: row.wer).stats if rows else None
    own = learned if best is None else best.adaptive
    lam = None if own or not has_lam else 0.5 if best is None else best.lam
    argument = "" if lam is None else f", lam={lam!r}"
    squeeze = None if best is None else best.squeeze
    imports, sets = [], []
    if squeeze is not None:
        imports.append("from espnet_ofa import set_squeeze")
        sets.append(f'set_squeeze(classifier.classification_model, "{squeeze}")')
    return "\n\n".join(
        [
            shell('pip install "espnet_ofa[espnet]" torcheval'),
            python(
                "import soundfile",
                *imports,
                "from espnet_ofa.zoo.pull import load_cls",
                "",
                f'classifier = load_cls("{REPO}"{argument})',
                *sets,
                'speech, rate = soundfile.read("speech.wav")  # 16 kHz, mono',
                "_, scores, label = classifier(speech)",
                "print(label)",
            ),
            "`load_cls` gives ESPnet's own `Classification`. It reads safetensors, and "
            "refuses a truncated or altered download.",
        ]
    )


def _value(value: object) -> str:
    """As a command line takes it."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def shell(*lines: str) -> str:
    """Fenced commands."""
    return "\n".join(["```sh", *lines, "```"])


def python(*lines: str) -> str:
    """Fenced code."""
    return "\n".join(["```python", *lines, "```"])
