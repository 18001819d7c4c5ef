"""Progress bars, wandb tracking, figures and the HTML report."""
