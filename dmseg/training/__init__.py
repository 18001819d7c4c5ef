"""The fit loop, its schedule, and evaluation (floor 2)."""
