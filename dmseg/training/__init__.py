"""Training and evaluation: fit loop, objectives, checkpoints, predictors."""
