"""What a machine is: this one, and those over SSH. Knows nothing of layers."""
