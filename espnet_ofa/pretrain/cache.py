"""A teacher's hidden states on disk: safetensors shards, an index, and whose they are.

In a folder, ``teacher.json`` holds the facts, ``teacher.NUMBER.safetensors`` one tensor
(frames, layers, width) an utterance, and ``teacher.scp`` the shard of each utterance.
The index comes last: where it is, all shards are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espnet_ofa.files import write_file, write_text

FACTS_NAME = "teacher.json"
INDEX_NAME = "teacher.scp"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CacheFacts:
    """Whose hidden states a cache holds.

    Attributes:
        teacher: name, for messages.
        fingerprint: see :meth:`Teacher.fingerprint`.
        layers: which ones, in the order of the tensors.
        dim: their width.
        dtype: of the files, ``float16`` or ``bfloat16``.
    """

    teacher: str
    fingerprint: str
    layers: tuple[int, ...]
    dim: int
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(
                f"a cache's dtype must be {' or '.join(DTYPES)}; got {self.dtype!r}"
            )

    @classmethod
    def read(cls, folder: str | Path) -> CacheFacts:
        """Facts of a cache.

        Raises:
            FileNotFoundError, ValueError: no cache there, or not one of ours.
        """
        path = Path(folder) / FACTS_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not found; expected a teacher's cache")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "layers": tuple(values["layers"])})
        except (ValueError, KeyError, TypeError) as e:
            raise ValueError(f"{path}: not the facts of a teacher's cache ({e})") from e

    def check(self, wanted: CacheFacts, folder: str | Path) -> None:
        """Raise a ValueError unless this is the cache that is wanted."""
        differ = [
            f"{name}: expected {theirs}, found {ours}"
            for name, ours in asdict(self).items()
            if name not in ("teacher", "dtype")
            and ours != (theirs := getattr(wanted, name))
        ]
        if differ:
            raise ValueError(
                f"{folder} is the cache of another teacher ({self.teacher}, not "
                f"{wanted.teacher}) or of other layers; {'; '.join(differ)}. Make it "
                "again in another folder, or remove it"
            )


def plan_shards(
    frames: Mapping[str, int], facts: CacheFacts, megabytes: float = 256
) -> list[list[str]]:
    """Utterances of each shard: of like length, so that batches have little padding.

    Args:
        frames: frames of each utterance.
        facts: width and layers.
        megabytes: size of a shard.
    """
    room = megabytes * 1e6 / (2 * facts.dim * len(facts.layers))  # in frames
    shards: list[list[str]] = []
    used = room
    for utt in sorted(frames, key=lambda x: (frames[x], x)):
        if not shards or used + frames[utt] > room:
            shards.append([])
            used = 0
        shards[-1].append(utt)
        used += frames[utt]
    return shards


class CacheWriter:
    """Writes a cache, and goes on with one that was interrupted.

    Args:
        folder: gets the files.
        facts: whose hidden states.
        frames: frames of each utterance.
        megabytes: size of a shard.

    Raises:
        ValueError: the folder holds the cache of another teacher.
    """

    def __init__(
        self,
        folder: str | Path,
        facts: CacheFacts,
        frames: Mapping[str, int],
        megabytes: float = 256,
    ) -> None:
        self.folder = Path(folder)
        self.facts = facts
        self.frames = frames
        self.shards = plan_shards(frames, facts, megabytes)
        if (self.folder / FACTS_NAME).is_file():
            CacheFacts.read(self.folder).check(facts, self.folder)
        else:
            text = json.dumps(asdict(facts), indent=2) + "\n"
            write_text(self.folder / FACTS_NAME, text)

    def _path(self, number: int) -> Path:
        return self.folder / f"teacher.{number:05d}.safetensors"

    def missing(self) -> Iterator[tuple[int, list[str]]]:
        """Number and utterances of each shard that is not there as planned."""
        for number, utts in enumerate(self.shards):
            if not self._is_whole(self._path(number), utts):
                yield number, utts

    def _is_whole(self, path: Path, utts: Sequence[str]) -> bool:
        if not path.is_file():
            return False
        try:
            with safe_open(path, "pt") as shard:
                return sorted(shard.keys()) == sorted(utts) and all(
                    shard.get_slice(utt).get_shape() == self._shape(utt) for utt in utts
                )
        except SafetensorError:
            return False

    def _shape(self, utt: str) -> list[int]:
        return [self.frames[utt], len(self.facts.layers), self.facts.dim]

    def write(self, number: int, states: Mapping[str, Tensor]) -> None:
        """Write one shard: (S, layers, D) of each of its utterances.

        Raises:
            ValueError: names the utterance whose states are not finite in the files'
                precision, or of another shape than planned.
        """
        dtype = DTYPES[self.facts.dtype]
        ready = {}
        for utt, value in states.items():
            ready[utt] = value.to("cpu", dtype).contiguous()
            if list(value.shape) != self._shape(utt):
                raise ValueError(
                    f"{utt}: expected hidden states of shape {self._shape(utt)}, found "
                    f"{list(value.shape)}"
                )
            if not torch.isfinite(ready[utt]).all():
                raise ValueError(
                    f"{utt}: hidden states are not finite in {self.facts.dtype}"
                    + ("; use bfloat16" if torch.isfinite(value).all() else "")
                )
        write_file(self._path(number), lambda draft: save_file(ready, draft))

    def finish(self) -> None:
        """Write the index; every shard must be there.

        Raises:
            FileNotFoundError: a shard is not.
        """
        lines = []
        for number, utts in enumerate(self.shards):
            path = self._path(number)
            if not path.is_file():
                raise FileNotFoundError(f"{path}: this shard is not written yet")
            lines += [f"{utt} {path}\n" for utt in utts]
        write_text(self.folder / INDEX_NAME, "".join(sorted(lines)))


class CacheReader:
    """Reads a cache by shard and utterance, once it is known to be the right one.

    Args:
        wanted: what the training asks for.
    """

    def __init__(self, wanted: CacheFacts) -> None:
        self.wanted = wanted
        self.known: set[Path] = set()

    def frames(self, shard: str | Path, utt: str) -> int:
        """Frames of an utterance."""
        with self._open(shard) as file:
            return self._slice(file, shard, utt).get_shape()[0]

    def read(self, shard: str | Path, utt: str, first: int, last: int) -> Tensor:
        """(last - first, layers, D) float32: some frames of an utterance.

        Raises:
            FileNotFoundError: no such shard.
            ValueError: another teacher's cache, or not in the shard.
        """
        with self._open(shard) as file:
            return self._slice(file, shard, utt)[first:last].float()

    def _open(self, shard: str | Path):
        folder = Path(shard).parent
        if folder not in self.known:
            CacheFacts.read(folder).check(self.wanted, folder)
            self.known.add(folder)
        try:
            return safe_open(shard, "pt")
        except SafetensorError as e:
            raise ValueError(f"{shard}: not a whole safetensors file ({e})") from e

    @staticmethod
    def _slice(file, shard: str | Path, utt: str):
        try:
            return file.get_slice(utt)
        except SafetensorError as e:
            raise ValueError(f"{shard}: {utt} is not in this shard ({e})") from e
