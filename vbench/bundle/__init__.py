"""Where results live: the journal, run.json, older forms of both, and whether they are sound."""
