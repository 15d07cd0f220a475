"""The parent of all: spawns, watches, restarts, reloads."""
