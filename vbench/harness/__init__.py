"""From a plan to a bundle: the only folder that needs machines."""
