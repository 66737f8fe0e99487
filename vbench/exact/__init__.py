"""The deterministic machine: an emulated PC whose every byte follows from what it is given."""
