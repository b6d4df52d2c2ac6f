"""Least squares: what brings Z back through operators without an exact inverse."""
