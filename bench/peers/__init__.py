"""The same work on other systems, beside ours: one table, all measured in one sitting.

Run `python -m bench.peers` from the checkout; see README.md. The driver is
`__main__`; `catalogue` names the peers and pins their versions; `environment`
installs each one apart; `measuring` holds the work and the figures, the same
for all; `servers` starts and stops what a peer needs beside it; `limits`
measures what the disk alone can do; `table` draws. A file that ends in an
underscore is one peer, run inside that peer's own virtual environment.
"""
