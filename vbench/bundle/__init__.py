"""Result bundles: the journal, run.json, migrations from older schemas, and verification."""
