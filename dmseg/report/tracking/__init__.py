"""Trackers: what people browse of runs and tables, in wandb, in MLflow or in JSON lines."""
