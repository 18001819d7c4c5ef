"""Metrics of a binary task: small counts of each case, the numbers they give, agreement of raters."""
