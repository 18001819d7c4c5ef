"""Paired comparison of two methods over cases (`dmseg.stats.paired`), and confidence intervals of cross-validation.

Import the functions from `dmseg.stats.paired` and `dmseg.stats.cross_validation`.
"""
