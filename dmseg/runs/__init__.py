"""One run: its name, its folder, its lease, what it computed, and what it may be copied with."""
