"""Find audio files that were cut short where libsndfile reads on without a word.

libsndfile reports a truncated flac or mp3 itself. Of a truncated wav, NIST sphere or
Ogg file it decodes what is left as if that were all.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # written by programs that stream
_OGG_TAIL = 2 * 65307  # the longest page, twice: the last one begins in there


def truncation(path: Path, audio_format: str) -> str | None:
    """Says how a file is cut short, or None.

    Args:
        path: audio file.
        audio_format: libsndfile's name of the container, lower case.
    """
    check = {"wav": _riff, "wavex": _riff, "nist": _sphere, "ogg": _ogg}.get(
        audio_format
    )
    return None if check is None else check(path)


def _lacks(expected: int, found: int) -> str | None:
    if found >= expected:
        return None
    return f"{found} bytes, its header promises {expected}"


def _riff(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return None
        position = 12
        while True:
            file.seek(position)
            header = file.read(8)
            if len(header) < 8:
                return None  # no data chunk: libsndfile has already complained
            name, length = header[:4], struct.unpack("<I", header[4:])[0]
            if name == b"data":
                known = length not in _UNKNOWN_SIZES
                return _lacks(position + 8 + length, size) if known else None
            position += 8 + length + length % 2


def _sphere(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(1024).decode("ascii", "replace")
    fields = dict(re.findall(r"^(\w+) -i (\d+)\s*$", head, re.MULTILINE))
    size = re.match(r"NIST_1A\s+(\d+)", head)
    if size is None or "sample_count" not in fields:
        return None
    if re.search(r"sample_coding.*(shorten|embedded)", head):
        return None  # compressed: the sample count says nothing about bytes
    samples = int(fields["sample_count"]) * int(fields.get("channel_count", 1))
    expected = int(size.group(1)) + samples * int(fields.get("sample_n_bytes", 2))
    return _lacks(expected, path.stat().st_size)


def _ogg(path: Path) -> str | None:
    """The last page must be whole and marked as the end of its stream (RFC 3533)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _OGG_TAIL))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27:
        return "its last Ogg page is cut"
    segments = page[26]
    if len(page) < 27 + segments + sum(page[27 : 27 + segments]):
        return "its last Ogg page is cut"
    if not page[5] & 0x04:
        return "the end-of-stream page is missing"
    return None
