"""The static check: follows workflow code through the project and tells what would not replay the same.

Nothing here imports or runs the code that it reads. The way of a check:
`search` finds the workflows of a project, `walk` follows each of them through
`statements`, `expressions` and `calls`, `outside` judges what is not of the
project, `findings` keeps what was found with the chain of calls that leads
there, and `report` writes it. `quick` is the short form of `@workflow`.
"""
