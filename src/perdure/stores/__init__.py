"""Where runs are kept: the contract in `base`, and a package for each database."""
