"""The Hugging Face Hub, or what ``HF_ENDPOINT`` names in its place."""

from espnet_ofa.hub.download import HUB_ID, pull

__all__ = ["HUB_ID", "pull"]
