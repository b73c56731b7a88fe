"""Würstchen checkpoints that are known by name."""
