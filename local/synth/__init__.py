"""A spoken-phrase corpus synthesised on the spot by espeak-ng; no download."""
