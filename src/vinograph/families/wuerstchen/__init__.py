"""Würstchen (Pernias et al., 2023, arXiv 2306.00637): a prior, a diffusion decoder, and a VQGAN."""
