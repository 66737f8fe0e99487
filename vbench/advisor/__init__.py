"""The decision aid: which stack suits, from the catalogue of systems and from measurements."""
