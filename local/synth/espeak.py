"""espeak-ng through ctypes: text to audio with true phone boundaries.

The pip package ``espeakng-loader`` carries the library and its voices. espeak-ng keeps
state between utterances (noise and flutter phases) that even ``espeak_Terminate`` does
not reset; the library is therefore unloaded and loaded again for every utterance
(1.5 ms), which makes the audio a function of its arguments alone.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from dataclasses import dataclass
from typing import Any

import espeakng_loader
import numpy as np

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INIT_PHONEME_EVENTS = 0x0001
_INIT_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_EVENT_END_OF_LIST = 0
_EVENT_PHONEME = 7
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER

SILENCE = "sil"


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h, API revision 12."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Prosody:
    """How to speak.

    Attributes:
        voice: espeak-ng voice, ``language+variant`` (``en-us+f2``).
        rate: words per minute, 80 to 450.
        pitch: 0 to 99, 50 is the voice's own.
        pitch_range: 0 to 99, 50 is the voice's own; 0 is monotone.
        volume: 0 to 200, 100 is full scale without clipping.
    """

    voice: str
    rate: int = 160
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 90


@dataclass(frozen=True)
class Speech:
    """What espeak-ng said.

    Attributes:
        wave: (L,) int16 samples.
        sample_rate: hertz.
        phones: espeak mnemonics without stress marks; ``sil`` for pauses.
        ends: (len(phones),) int64, the sample at which each phone ends; increasing,
            the last one is L, so the phones tile the audio.
    """

    wave: np.ndarray
    sample_rate: int
    phones: list[str]
    ends: np.ndarray


def synthesise(text: str, prosody: Prosody, seed: int = 0) -> Speech:
    """Speaks ``text``; the same arguments give the same samples, bit by bit.

    Raises:
        ValueError: unknown voice, or espeak-ng said nothing.
    """
    lib: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        return _speak(lib, text, prosody, seed)
    finally:
        lib.espeak_Terminate()
        _ctypes.dlclose(lib._handle)  # drops the state, see the module's docstring


def _speak(lib: Any, text: str, prosody: Prosody, seed: int) -> Speech:
    data_path = os.fsencode(espeakng_loader.get_data_path())
    sample_rate = lib.espeak_Initialize(
        _AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path, _INIT_PHONEME_EVENTS | _INIT_DONT_EXIT
    )
    if sample_rate <= 0:
        raise RuntimeError(
            f"espeak-ng does not start with its data in {os.fsdecode(data_path)}: "
            "reinstall the package espeakng-loader"
        )
    blocks: list[bytes] = []
    marks: list[tuple[int, str]] = []  # (first sample, mnemonic)

    def collect(wave: Any, num_samples: int, events: Any) -> int:
        if wave and num_samples > 0:
            blocks.append(ctypes.string_at(wave, 2 * num_samples))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                marks.append((event.sample, event.phoneme.decode("utf-8", "replace")))
            index += 1
        return 0

    callback = _CALLBACK(collect)  # must outlive the synthesis
    lib.espeak_SetSynthCallback(callback)
    if lib.espeak_SetVoiceByName(prosody.voice.encode()) != 0:
        raise ValueError(
            f"espeak-ng has no voice {prosody.voice!r}; expected language+variant, "
            "for example en-us+f2"
        )
    for parameter, value in (
        (_RATE, prosody.rate),
        (_VOLUME, prosody.volume),
        (_PITCH, prosody.pitch),
        (_RANGE, prosody.pitch_range),
    ):
        lib.espeak_SetParameter(parameter, int(value), 0)
    lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    data = text.encode()
    lib.espeak_Synth(
        data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _CHARS_UTF8, None, None
    )
    lib.espeak_Synchronize()
    wave = np.frombuffer(b"".join(blocks), np.int16)
    if not len(wave) or not marks:
        raise ValueError(f"espeak-ng said nothing for {text!r} ({prosody.voice})")
    phones, ends = _tile(marks, len(wave))
    return Speech(wave, sample_rate, phones, ends)


def _tile(marks: list[tuple[int, str]], length: int) -> tuple[list[str], np.ndarray]:
    """Phone start marks to phones that tile the audio; adjacent pauses are merged."""
    starts = [min(max(start, 0), length) for start, _ in marks] + [length]
    phones: list[str] = []
    ends: list[int] = []
    if starts[0] > 0:
        phones, ends = [SILENCE], [starts[0]]
    for (_, name), start, end in zip(marks, starts, starts[1:], strict=False):
        if end <= start:  # a mark without audio, such as a linking r that is mute
            continue
        phone = SILENCE if name.startswith("_") else name.lstrip("',%=")
        if phones and phone == phones[-1] == SILENCE:
            ends[-1] = end
        else:
            phones.append(phone)
            ends.append(end)
    return phones, np.asarray(ends, np.int64)
