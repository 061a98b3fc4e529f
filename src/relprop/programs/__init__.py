"""Propagations written down as programs."""
