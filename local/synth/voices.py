"""The speakers: espeak-ng dialects x variants, no variant in two splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth.espeak import Prosody


@dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        dialect: espeak-ng language name.
        variant: espeak-ng voice variant: vocal tract, pitch, and timbre.
        rate: the speaker's own rate, words per minute.
        pitch: the speaker's own pitch, 0 to 99 (50 is the variant's default).
        pitch_range: liveliness of the intonation, 0 to 99.
    """

    dialect: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int

    @property
    def speaker(self) -> str:
        """Speaker id: letters, digits and underscores."""
        return f"{self.dialect}_{self.variant}".replace("-", "").lower()

    def prosody(self, rng: np.random.Generator) -> Prosody:
        """This speaker with the jitter of one utterance."""
        return Prosody(
            voice=f"{self.dialect}+{self.variant}",
            rate=round(self.rate * rng.uniform(0.88, 1.12)),
            pitch=int(np.clip(self.pitch + rng.integers(-8, 9), 0, 99)),
            pitch_range=int(np.clip(self.pitch_range + rng.integers(-10, 11), 0, 99)),
            volume=int(rng.integers(70, 101)),
        )


_US, _GB, _RP = "en-us", "en", "en-gb-x-rp"
_SCOT, _CARIB, _LANC, _NYC = "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-us-nyc"

VOICES: dict[str, tuple[Voice, ...]] = {
    "train": (
        Voice(_US, "m1", 158, 50, 50),
        Voice(_GB, "m1", 146, 40, 60),
        Voice(_US, "m2", 150, 45, 40),
        Voice(_SCOT, "m2", 152, 55, 50),
        Voice(_GB, "m4", 144, 60, 50),
        Voice(_CARIB, "m4", 150, 40, 45),
        Voice(_US, "m6", 140, 50, 65),
        Voice(_RP, "m8", 156, 45, 50),
        Voice(_NYC, "m8", 164, 55, 40),
        Voice(_US, "f1", 154, 50, 55),
        Voice(_SCOT, "f1", 144, 40, 50),
        Voice(_RP, "f1", 150, 60, 45),
        Voice(_US, "f5", 148, 45, 50),
        Voice(_CARIB, "f5", 156, 60, 60),
        Voice(_LANC, "Alex", 150, 50, 50),
        Voice(_US, "Andrea", 146, 40, 50),
        Voice(_GB, "Andrea", 158, 30, 55),
        Voice(_US, "Andy", 152, 55, 50),
        Voice(_GB, "Annie", 150, 50, 45),
        Voice(_US, "Annie", 142, 40, 50),
        Voice(_SCOT, "Gene", 154, 50, 60),
        Voice(_RP, "Lee", 148, 50, 50),
        Voice(_US, "Mario", 150, 45, 50),
        Voice(_GB, "Hugo", 160, 50, 55),
        Voice(_NYC, "linda", 150, 50, 50),
        Voice(_RP, "belinda", 152, 50, 50),
        Voice(_US, "adam", 146, 50, 50),
        Voice(_GB, "klatt", 150, 50, 50),
        Voice(_US, "Alicia", 152, 45, 55),
        Voice(_US, "david", 156, 50, 45),
        Voice(_CARIB, "max", 148, 50, 50),
        Voice(_LANC, "paul", 150, 55, 50),
    ),
    "valid": (
        Voice(_US, "m5", 150, 50, 50),
        Voice(_GB, "f3", 152, 50, 50),
        Voice(_RP, "Denis", 148, 50, 50),
        Voice(_US, "steph", 150, 45, 50),
    ),
    "test": (
        Voice(_US, "m3", 152, 50, 50),
        Voice(_GB, "f2", 150, 50, 50),
        Voice(_SCOT, "m7", 148, 50, 50),
        Voice(_US, "f4", 154, 50, 50),
        Voice(_RP, "Michael", 150, 50, 50),
        Voice(_CARIB, "rob", 146, 45, 50),
    ),
}
