"""How people and other programs reach runs: the command line, and later the web. They see the client only."""
