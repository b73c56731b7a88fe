"""PixArt checkpoints that are known by name."""
