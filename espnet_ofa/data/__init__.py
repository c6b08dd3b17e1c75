"""Tools for Kaldi-style data directories; they need neither torch nor ESPnet."""
