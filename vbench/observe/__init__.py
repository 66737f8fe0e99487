"""What a host is, whether stacks are treated alike, and what disturbs."""
