"""Fusion of several raters' annotations into one label, and label smoothing."""
