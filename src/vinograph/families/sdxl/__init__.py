"""SDXL (arXiv 2307.01952) and SDXL-Turbo (arXiv 2311.17042)."""
