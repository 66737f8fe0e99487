"""What is run: how much, in which shares, from where, read how."""
