"""Reads files of any origin within limits, and writes files and folders atomically."""
