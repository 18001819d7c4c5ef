"""Metrics of binary segmentation: per-case counts, the scores computed from them, and agreement of raters."""
