"""Corpus + frozen teacher -> label shards."""
