"""What is wrong with a corpus, sorted and counted, on stderr and in a log file."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from espnet_ofa.data.audio import AudioError, check_audio
from espnet_ofa.data.kaldi_dir import DataDir
from espnet_ofa.data.parallel import run_jobs
from espnet_ofa.files import write_text

SHOWN = 5
SAMPLE_RATE = 16000


class CorpusReport:
    """Collects problems (which make a corpus wrong) and notes (which do not)."""

    def __init__(self) -> None:
        self.problems: dict[str, list[str]] = defaultdict(list)
        self.notes: dict[str, list[str]] = defaultdict(list)

    def problem(self, kind: str, what: str) -> None:
        """Files a problem under its kind."""
        self.problems[kind].append(what)

    def note(self, kind: str, what: str) -> None:
        """Files something worth knowing that is no error."""
        self.notes[kind].append(what)

    def text(self, shown: int | None = None) -> str:
        """All kinds with their counts and the first ``shown`` of each."""
        lines: list[str] = []
        for title, kinds in (("PROBLEM", self.problems), ("note", self.notes)):
            for kind, items in kinds.items():
                lines.append(f"{title}: {kind}: {len(items)}")
                lines += [f"  {item}" for item in items[:shown]]
                if shown is not None and len(items) > shown:
                    lines.append(f"  ... and {len(items) - shown} more")
        return "\n".join(lines)

    def finish(self, log: Path, *, skip_bad: bool) -> int:
        """Prints the summary, writes the full list; returns the exit status."""
        if not self.problems and not self.notes:
            log.unlink(missing_ok=True)  # of an earlier run on a broken corpus
            return 0
        write_text(log, self.text() + "\n")
        print(self.text(SHOWN), file=sys.stderr)
        print(f"full list: {log}", file=sys.stderr)
        if not self.problems:
            return 0
        if skip_bad:
            print("--skip_bad: the files above are left out", file=sys.stderr)
            return 0
        print(
            "the corpus is wrong or incomplete: copy it again, or do without these "
            "files: --skip_bad (./run.sh --skip_bad true)",
            file=sys.stderr,
        )
        return 1


def check_files(wav: Mapping[str, str], report: CorpusReport, *, nj: int) -> set[str]:
    """Decodes every file; reports the bad ones.

    Args:
        wav: utterance to audio file.
        report: gets unreadable files as problems, other sample rates as notes.
        nj: processes.

    Returns:
        The utterances whose audio is whole.
    """
    utterances = sorted(wav)
    results = run_jobs(
        _check_file, [wav[utt] for utt in utterances], nj=nj, label="check audio"
    )
    good: set[str] = set()
    for utt, result in zip(utterances, results, strict=True):
        if isinstance(result, str):
            report.problem("unreadable audio", result)
            continue
        good.add(utt)
        if result != SAMPLE_RATE:
            report.note(
                f"sample rate is not {SAMPLE_RATE} Hz (resampled when formatted)",
                f"{wav[utt]}: {result} Hz",
            )
    return good


def _check_file(path: str) -> int | str:
    """The sample rate in hertz, or what is wrong."""
    try:
        return check_audio(path).sample_rate
    except AudioError as error:
        return str(error)


def summary(name: str | Path, data: DataDir) -> str:
    """One line about what was prepared."""
    return f"{name}: {len(data)} utterances, {len(data.spk2utt)} speakers"
