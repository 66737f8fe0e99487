"""Facts about hosts, fairness between stacks, and noise."""
