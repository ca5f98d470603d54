"""AsyncAPI 3.0: what a program's streams hold, and who reads and writes them, as a document.

Made from the code, or written by hand first: then the code is compared with it.
"""
