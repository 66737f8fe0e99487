"""Turning a plan into a bundle; the only folder that needs machines."""
