r"""Pack trained models and publish them on the Hugging Face Hub.

    python -m espnet_ofa.bin.publish pack_asr --exp_dir exp/asr_train_asr_ctc \
        --model_file valid.loss.ave.pth --out_dir packed/model --zip packed/model.zip
    python -m espnet_ofa.bin.publish upload --folder packed/model --repo user/name
    python -m espnet_ofa.bin.publish pull user/name

The packed folder loads with unmodified ESPnet and needs nothing else; so does the zip.
docs/publishing.md has the whole way.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_ofa.bin.errors import one_line

_ONNX: dict[str, bool | None] = {"true": True, "false": False, "auto": None}


def get_parser() -> argparse.ArgumentParser:
    """Command line: one subcommand per step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    asr = command("pack_asr", _pack_asr, "pack a recogniser that ESPnet trained")
    asr.add_argument("--bpemodel", help="by default where the config says")
    cls = command("pack_cls", _pack_cls, "pack a classifier that ESPnet trained")
    for sub in (asr, cls):
        sub.add_argument("--exp_dir", required=True, help="folder of the training")
        sub.add_argument("--model_file", required=True, help="checkpoint in it")
        sub.add_argument(
            "--decode_dir",
            action="append",
            help="results for the card; by default all below --exp_dir",
        )
        sub.add_argument(
            "--test_set",
            action="append",
            default=[],
            metavar="NAME:DIR",
            help="where the reference DIR/text is, if it moved since decoding",
        )
        sub.add_argument(
            "--allow_fetches",
            action="store_true",
            help="also a model of which loading fetches a part from elsewhere",
        )
    ssl = command("pack_upstream", _pack_upstream, "pack a pre-trained upstream")
    ssl.add_argument("--upstream_dir", required=True, help="config.yaml and weights")
    ssl.add_argument(
        "--onnx",
        nargs="?",
        choices=_ONNX,
        const="true",
        default="false",
        help="model.onnx as well; auto: if it can be made here",
    )
    for sub in (asr, cls, ssl):
        sub.add_argument("--out_dir", required=True, help="the package; replaced")
        sub.add_argument("--zip", help="write it as a zip file too")
        sub.add_argument(
            "--license",
            default="unknown",
            help="of the weights, as the hub names it, e.g. cc-by-4.0",
        )
        sub.add_argument("--license_name", help="with --license other")
        sub.add_argument("--datasets", nargs="*", default=[], help="trained on")
        sub.add_argument("--language", default="en", help="ISO code, or none")
        sub.add_argument("--train_command", help="by default that in train.log")

    upload = command("upload", _upload, "upload a packed folder")
    upload.add_argument("--folder", required=True, help="what was packed")
    upload.add_argument("--repo", required=True, help="USER/NAME; made if need be")
    upload.add_argument("--private", action="store_true", help="where it is made")
    upload.add_argument("--revision", help="branch, made if need be; by default main")
    upload.add_argument(
        "--exist_ok", action="store_true", help="whatever the repository holds"
    )
    upload.add_argument(
        "--dry_run", action="store_true", help="only show what would go; no network"
    )
    text = "download, compare with the checksums, and print the folder"
    get = command("pull", _pull, text)
    get.add_argument("name", help="hub id USER/NAME, or a zip or folder to check")
    get.add_argument("--revision", help="branch, tag or commit; by default main")
    get.add_argument("--cache_dir", help="by default where huggingface_hub keeps it")
    return parser


def _about(args: argparse.Namespace):
    from espnet_ofa.zoo.card import About

    # Recipes call their language what they like; the hub knows ISO codes.
    iso = re.fullmatch("[a-z]{2,3}", args.language)
    return About(
        license=args.license,
        license_name=args.license_name,
        datasets=tuple(args.datasets),
        language=args.language if iso else None,
        command=args.train_command,
    )


def _pack_asr(args: argparse.Namespace) -> None:
    from espnet_ofa.zoo.pack import pack_asr

    _pack_task(pack_asr, args, bpemodel=args.bpemodel)


def _pack_cls(args: argparse.Namespace) -> None:
    from espnet_ofa.zoo.pack import pack_cls

    _pack_task(pack_cls, args)


def _pack_task(pack: Callable[..., Path], args: argparse.Namespace, **options) -> None:
    from espnet_ofa.bin.report import find_references

    folder = pack(
        args.exp_dir,
        args.model_file,
        args.out_dir,
        about=_about(args),
        decode_dirs=args.decode_dir,
        references=find_references(args.test_set),
        allow_fetches=args.allow_fetches,
        **options,
    )
    _finish(folder, args.zip)


def _pack_upstream(args: argparse.Namespace) -> None:
    from espnet_ofa.zoo.pack import pack_upstream

    folder = pack_upstream(
        args.upstream_dir, args.out_dir, about=_about(args), onnx=_ONNX[args.onnx]
    )
    _finish(folder, args.zip)


def _finish(folder: Path, zip_name: str | None) -> None:
    print(folder)
    if zip_name is not None:
        from espnet_ofa.zoo.pack import archive

        print(archive(folder, zip_name))


def _upload(args: argparse.Namespace) -> None:
    # Imported here: uploading needs neither torch nor ESPnet.
    from espnet_ofa.zoo.publish import publish

    address = publish(
        args.folder,
        args.repo,
        private=args.private,
        dry_run=args.dry_run,
        revision=args.revision,
        exist_ok=args.exist_ok,
    )
    if not args.dry_run:
        print(address)


def _pull(args: argparse.Namespace) -> None:
    from espnet_ofa.hub import pull

    print(pull(args.name, revision=args.revision, cache_dir=args.cache_dir))


@one_line
def main(cmd: Sequence[str] | None = None) -> None:
    """Command line."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    for client in ("httpx", "httpx2"):  # a line for every request
        logging.getLogger(client).setLevel("WARNING")
    args.run(args)


if __name__ == "__main__":
    main()
