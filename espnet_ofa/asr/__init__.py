"""ESPnet adapters: the frontend, preencoder, encoder and model named ``ofa``."""
