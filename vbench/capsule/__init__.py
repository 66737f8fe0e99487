"""The capsule, the bytes that are run: one tree of Debian packages, identified by its digest."""
