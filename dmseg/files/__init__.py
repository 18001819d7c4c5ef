"""Files that other people made are read within bounds; our own appear whole or not at all."""
