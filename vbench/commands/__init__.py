"""The commands, a module for each kind; each imports what it needs when it runs."""
