"""A Kaldi-style data directory: wav.scp, text, utt2spk, spk2utt and what goes along.

Only plain audio files are allowed in ``wav.scp`` (no pipes) and no ``segments`` file:
an utterance is a file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_ofa.data.boundaries import (
    Segmentation,
    read_boundaries,
    write_boundaries,
)
from espnet_ofa.data.table import DataError, read_table, write_table


@dataclass(frozen=True)
class DataDir:
    """The content of a data directory; every method returns a new one.

    Attributes:
        wav: utterance to audio file.
        utt2spk: utterance to speaker.
        text: utterance to transcript; None for untranscribed audio.
        num_samples: utterance to length in samples; None before formatting.
        boundaries: utterance to segments; None where they are unknown.
    """

    wav: dict[str, str]
    utt2spk: dict[str, str]
    text: dict[str, str] | None = None
    num_samples: dict[str, int] | None = None
    boundaries: dict[str, Segmentation] | None = None

    def __len__(self) -> int:
        return len(self.wav)

    @property
    def utterances(self) -> list[str]:
        """Utterance ids, sorted."""
        return sorted(self.wav)

    @property
    def spk2utt(self) -> dict[str, list[str]]:
        """Speaker to sorted utterances."""
        speakers: dict[str, list[str]] = defaultdict(list)
        for utt in sorted(self.utt2spk):
            speakers[self.utt2spk[utt]].append(utt)
        return dict(sorted(speakers.items()))

    # -- files ------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | Path) -> DataDir:
        """Reads a directory and checks that its files agree (not the audio).

        Raises:
            DataError: names every file and utterance that is wrong.
            FileNotFoundError: no ``wav.scp`` or no ``utt2spk``.
        """
        path = Path(path)
        for name in ("wav.scp", "utt2spk"):
            if not (path / name).exists():
                raise FileNotFoundError(
                    f"{path}/{name} does not exist: is {path} a data directory?"
                )
        if (path / "segments").exists():
            raise DataError(
                path / "segments", ["not supported: cut the audio into files first"]
            )
        counts: dict[str, int] | None = None
        if (path / "utt2num_samples").exists():
            table = read_table(path / "utt2num_samples")
            wrong = [
                f"{utt}: {value!r} is not a whole number of samples"
                for utt, value in table.items()
                if not value.isdigit()
            ]
            if wrong:
                raise DataError(path / "utt2num_samples", wrong)
            counts = {utt: int(value) for utt, value in table.items()}
        data = cls(
            wav=read_table(path / "wav.scp"),
            utt2spk=read_table(path / "utt2spk"),
            text=read_table(path / "text") if (path / "text").exists() else None,
            num_samples=counts,
            boundaries=(
                read_boundaries(path) if (path / "boundaries").exists() else None
            ),
        )
        data.check(path)
        return data

    def write(self, path: str | Path) -> None:
        """Checks and writes the directory; ``wav.scp`` comes last, as a seal."""
        path = Path(path)
        self.check(path)
        path.mkdir(parents=True, exist_ok=True)
        (path / "wav.scp").unlink(missing_ok=True)
        optional = {
            "text": self.text,
            "utt2num_samples": self.num_samples
            and {utt: str(count) for utt, count in self.num_samples.items()},
        }
        for name, table in optional.items():
            if table is None:
                (path / name).unlink(missing_ok=True)
            else:
                write_table(path / name, table)
        if self.boundaries is not None:
            write_boundaries(path, self.boundaries)
        else:
            for name in ("boundaries", "phones"):
                (path / name).unlink(missing_ok=True)
        write_table(path / "utt2spk", self.utt2spk)
        write_table(
            path / "spk2utt",
            {speaker: " ".join(utts) for speaker, utts in self.spk2utt.items()},
        )
        write_table(path / "wav.scp", self.wav)

    def check(self, where: str | Path, *, thorough: bool = False) -> None:
        """Checks that the tables agree.

        Args:
            where: the directory, for messages.
            thorough: also check that no transcript is empty (allowed until
                utterances are filtered) and that every audio file is there.

        Raises:
            DataError: all problems at once, each with its file and utterance.
        """
        where = Path(where)
        problems: list[str] = []
        if not self.wav:
            problems.append("wav.scp: no utterances")
        tables = {
            "utt2spk": self.utt2spk,
            "text": self.text,
            "utt2num_samples": self.num_samples,
            "boundaries": self.boundaries,
        }
        for name, table in tables.items():
            if table is None:
                continue
            problems += [
                f"{name}: {utt} is missing (it is in wav.scp)"
                for utt in sorted(self.wav.keys() - table.keys())
            ]
            problems += [
                f"wav.scp: {utt} is missing (it is in {name})"
                for utt in sorted(table.keys() - self.wav.keys())
            ]
        texts = (self.text or {}) if thorough else {}
        for name, table in (("text", texts), ("utt2spk", self.utt2spk)):
            problems += [
                f"{name}: {utt} has an empty entry"
                for utt, value in table.items()
                if not value.strip()
            ]
        for utt, name in sorted(self.wav.items()):
            if not name:
                problems.append(f"wav.scp: {utt} has no audio file")
            elif name.endswith("|"):
                problems.append(f"wav.scp: {utt} is a pipe; expected an audio file")
            elif thorough and not Path(name).is_file():
                problems.append(f"wav.scp: {utt}: {name} does not exist")
            elif thorough and Path(name).stat().st_size == 0:
                problems.append(f"wav.scp: {utt}: {name} is empty")
        if problems:
            raise DataError(where, problems)

    # -- copies -----------------------------------------------------------------

    def subset(self, utterances: Iterable[str]) -> DataDir:
        """The named utterances only.

        Raises:
            KeyError: an utterance that is not there.
        """
        kept = sorted(set(utterances))
        missing = [utt for utt in kept if utt not in self.wav]
        if missing:
            raise KeyError(f"no such utterance: {', '.join(missing[:5])}")
        return replace(
            self,
            wav={utt: self.wav[utt] for utt in kept},
            utt2spk={utt: self.utt2spk[utt] for utt in kept},
            text=self.text and {utt: self.text[utt] for utt in kept},
            num_samples=self.num_samples
            and {utt: self.num_samples[utt] for utt in kept},
            boundaries=self.boundaries and {utt: self.boundaries[utt] for utt in kept},
        )

    @classmethod
    def combine(cls, parts: Iterable[DataDir]) -> DataDir:
        """Several directories as one; a table is kept where every part has it.

        Raises:
            DataError: an utterance is in two parts.
        """
        parts = list(parts)
        if not parts:
            raise ValueError("nothing to combine: expected at least one data directory")
        merged = cls(wav={}, utt2spk={}, text={}, num_samples={}, boundaries={})
        problems: list[str] = []
        for part in parts:
            problems += [
                f"{utt} is in two of the directories"
                for utt in sorted(part.wav.keys() & merged.wav.keys())
            ]
            merged.wav.update(part.wav)
            merged.utt2spk.update(part.utt2spk)
            for name in ("text", "num_samples", "boundaries"):
                getattr(merged, name).update(getattr(part, name) or {})
        if problems:
            raise DataError("combine", problems)
        dropped = {
            name: None
            for name in ("text", "num_samples", "boundaries")
            if any(getattr(part, name) is None for part in parts)
        }
        return replace(merged, **dropped)
