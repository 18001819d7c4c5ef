"""One adapter for each data set: raw files in, cases out."""
