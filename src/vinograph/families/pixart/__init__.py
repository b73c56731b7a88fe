"""PixArt-α (arXiv 2310.00426), its consistency model (2401.05252) and PixArt-Σ (2403.04692)."""
