"""Comparing two bundles: whether they are comparable, what changed, and whether a replay repeated."""
