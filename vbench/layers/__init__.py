"""The layers: one file per technique."""
