"""Upstreams in the hands of other toolkits: s3prl, and Hugging Face transformers."""
