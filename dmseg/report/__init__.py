"""Progress bars, wandb tracking and figures."""
