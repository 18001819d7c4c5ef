"""Trackers: record runs and tables for browsing in wandb or MLflow, or as JSON lines."""
