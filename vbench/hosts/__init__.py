"""Hosts: this machine, and machines over SSH. Knows nothing about layers."""
