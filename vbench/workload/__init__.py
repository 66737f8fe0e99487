"""Workloads: what is run, how much of it, in which mix, where it comes from, and how its output is read."""
