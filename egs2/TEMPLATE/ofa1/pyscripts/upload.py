#!/usr/bin/env python3
"""Upload a folder to the Hugging Face Hub (or what HF_ENDPOINT names)."""

from __future__ import annotations

import argparse

from huggingface_hub import HfApi


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("repo", help="USER/NAME")
    args = parser.parse_args()
    api = HfApi()
    api.create_repo(args.repo, exist_ok=True)
    api.upload_folder(repo_id=args.repo, folder_path=args.folder)
    print(f"{api.endpoint}/{args.repo}")


if __name__ == "__main__":
    main()
