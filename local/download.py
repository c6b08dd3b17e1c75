#!/usr/bin/env python3
"""Finds a corpus, or downloads, verifies and unpacks it; prints where it is.

With --corpus_dir the corpus is taken from there and nothing is downloaded. Otherwise
the archives go to DOWNLOAD_DIR, interrupted downloads are resumed, and finished ones
are kept. The only line on standard output is the corpus directory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import an4
from fetch import FetchError, download, unpack
from librispeech import find_part

_SLR = "https://www.openslr.org/resources"


@dataclass(frozen=True)
class Archive:
    """Where an archive is and what it must be.

    Attributes:
        url: its address.
        checksum: ``algorithm:hex``; None where none is published, and then it must be
            asked for with ``--checksum none``.
    """

    url: str
    checksum: str | None

    @property
    def name(self) -> str:
        """The file's name without its suffixes."""
        return self.url.rsplit("/", 1)[-1].partition(".")[0]


# OpenSLR 12: sha256 as in torchaudio's data set class. OpenSLR 31: md5sum.txt there.
# The labelled hours of Libri-light: sha256 as in torchaudio's data set class.
# Speech Commands: sha256 as in torchaudio's data set class; its folders are words, of
# which one stands for all. AN4: the copy that NVIDIA keeps for NeMo (the university's
# own address has come and gone); the university publishes no checksum, this one was
# found in one public script.
ARCHIVES: dict[str, dict[str, Archive]] = {
    "librispeech": {
        part: Archive(f"{_SLR}/12/{part}.tar.gz", f"sha256:{sha256}")
        for part, sha256 in {
            "dev-clean": (
                "76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"
            ),
            "dev-other": (
                "12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"
            ),
            "test-clean": (
                "39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"
            ),
            "test-other": (
                "d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"
            ),
            "train-clean-100": (
                "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"
            ),
            "train-clean-360": (
                "146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"
            ),
            "train-other-500": (
                "ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"
            ),
        }.items()
    },
    "librispeech_finetuning": dict.fromkeys(
        (
            *(f"1h/{i}/{kind}" for i in range(6) for kind in ("clean", "other")),
            "9h/clean",
            "9h/other",
        ),
        Archive(
            "https://dl.fbaipublicfiles.com/librilight/data/librispeech_finetuning.tgz",
            "sha256:5d1efdc777b548194d7e09ba89126e2188026df9fd57aa57eb14408d2b2342af",
        ),
    ),
    "mini_librispeech": {
        part: Archive(f"{_SLR}/31/{part}.tar.gz", f"md5:{md5}")
        for part, md5 in {
            "train-clean-5": "5df7d4e78065366204ca6845bb08f490",
            "dev-clean-2": "6d7ab67ac6a1d2c993d050e16d61080d",
        }.items()
    },
    "speech_commands": {
        "yes": Archive(
            "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    },
    "an4": dict.fromkeys(
        ("train", "test"),
        Archive(
            "https://dldata-public.s3.us-east-2.amazonaws.com/an4_sphere.tar.gz",
            "sha256:a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12",
        ),
    ),
}


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--corpus", choices=sorted(ARCHIVES), required=True)
    parser.add_argument(
        "--parts",
        default="",
        help="parts that are needed; a|b: a is downloaded, b will do; empty: all",
    )
    parser.add_argument(
        "--corpus_dir", default="", help="a copy that is there already; empty: none"
    )
    parser.add_argument("--download_dir", type=Path, default=Path("downloads"))
    parser.add_argument(
        "--checksum",
        choices=("known", "none"),
        default="known",
        help="none: take an archive without verifying it",
    )
    parser.add_argument(
        "--keep_archives", action="store_true", help="keep them after unpacking"
    )
    return parser


def check_copy(parts: Iterable[str], corpus_dir: Path) -> None:
    """Checks that a copy has the parts (not their content).

    Raises:
        FileNotFoundError: names what is missing and where it was looked for.
    """
    if not corpus_dir.is_dir():
        raise FileNotFoundError(f"--corpus_dir {corpus_dir}: no such directory")
    for part in parts:
        if an4.find_root(corpus_dir, part) is None:
            find_part(corpus_dir, part)


def fetch_corpus(
    archives: Iterable[Archive],
    download_dir: Path,
    *,
    verify: bool,
    keep_archives: bool,
) -> None:
    """Downloads and unpacks the archives that are not unpacked yet.

    Raises:
        FetchError: a download failed, or has no checksum to be verified with.
    """
    for archive in dict.fromkeys(archives):
        done = download_dir / f".{archive.name}.done"
        if done.exists():
            continue
        if verify and archive.checksum is None:
            raise FetchError(
                f"{archive.url}: no checksum is published; use --checksum none to take "
                "it unverified"
            )
        path = download_dir / archive.url.rsplit("/", 1)[-1]
        download(archive.url, path, archive.checksum if verify else None)
        unpack(path, download_dir)
        done.touch()
        if not keep_archives:
            path.unlink()


def main(cmd: list[str] | None = None) -> int:
    """Entry point."""
    args = get_parser().parse_args(cmd)
    known = ARCHIVES[args.corpus]
    parts = args.parts.split() or list(known)
    try:
        if args.corpus_dir:
            root = Path(args.corpus_dir)
        else:
            names = [part.split("|")[0] for part in parts]
            unknown = [name for name in names if name not in known]
            if unknown:
                raise FetchError(
                    f"{args.corpus} has no part {', '.join(unknown)}; "
                    f"expected some of {', '.join(known)}"
                )
            fetch_corpus(
                [known[name] for name in names],
                args.download_dir,
                verify=args.checksum == "known",
                keep_archives=args.keep_archives,
            )
            root = args.download_dir
        check_copy(parts, root)
    except (FetchError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(root.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
