"""Frames in, tracks and events out: the infer process."""
