"""The nouns that users import. Each is thin, and speaks to the run it stands in through the host."""
