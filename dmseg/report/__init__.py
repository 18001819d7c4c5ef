"""What people watch and read: progress, logs, wandb (floor 5)."""
