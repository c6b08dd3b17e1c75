"""What a model card says of using a recogniser: commands and code that run as shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_ofa.report.tradeoff import Row

REPO = "USER/NAME"  # publishing puts the repository's name in its place

_SEARCH = ("beam_size", "ctc_weight", "penalty", "maxlenratio")


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
    setup: Mapping[str, object] = rows[0].stats.setup if rows else {}
    only_ctc = config.get("decoder") is None
    best = min(rows, key=lambda row: row.wer).stats if rows else None
    lam = None if not has_lam else 0.5 if best is None else best.lam
    squeeze = None if best is None else best.squeeze

    if setup.get("search", "greedy" if only_ctc else "beam") == "greedy":
        search = "--search greedy"
    else:
        usual = {"beam_size": 5, "maxlenratio": -200}
        given = {name: setup[name] for name in _SEARCH if name in setup} or usual
        search = " ".join(f"--{name} {value}" for name, value in given.items())
    knobs = "" if lam is None else f" --lam {lam:.3g}"
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
        "In Python, with ESPnet's own search"
        + by_prefix * (search == "--search greedy")
        + ":",
    ]
    options: dict[str, object] = {"beam_size": 5}
    if only_ctc:
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
        own = "without it: the learned one" if learned else "0: exact; 1: shortest"
        imports.append("set_lam")
        sets.append(f"set_lam(speech2text.asr_model, {lam:.3g})  # {own}")
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


def shell(*lines: str) -> str:
    """Fenced commands."""
    return "\n".join(["```sh", *lines, "```"])


def python(*lines: str) -> str:
    """Fenced code."""
    return "\n".join(["```python", *lines, "```"])
