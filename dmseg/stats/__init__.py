"""Paired comparison of two methods over cases."""
