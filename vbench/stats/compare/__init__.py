"""Two bundles: may they be compared, what changed, did it repeat."""
