"""Which stack suits: what is documented of each system, and what was measured."""
