"""SDXL (Podell et al., 2023, arXiv 2307.01952) and SDXL-Turbo (Sauer et al., 2023, arXiv 2311.17042)."""
