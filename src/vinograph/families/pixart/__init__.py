"""PixArt-α (arXiv 2310.00426), its latent consistency model (arXiv 2401.05252) and PixArt-Σ (arXiv 2403.04692)."""
