"""Leaf: numerical kernels, each with its plain reference."""
