"""With what bytes: one tree of Debian packages, known by its digest."""
