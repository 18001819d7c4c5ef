"""Runs: how they are named, stored, planned and launched (floor 3)."""
