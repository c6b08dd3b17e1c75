"""The SSL encoder: extractor, compressor and Transformer over units."""

from espnet_ofa.upstream.config import UpstreamConfig
from espnet_ofa.upstream.model import OFAUpstream, UpstreamOutput

__all__ = ["OFAUpstream", "UpstreamConfig", "UpstreamOutput"]
