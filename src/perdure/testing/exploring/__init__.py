"""The inside of `explore`: a world that is played again and again, each time in another order.

`plan` says what is explored, `path` makes the choices of one schedule, `world`
plays it (with `runs`, `steps`, `choosing` and `children`), `explored` is what a check sees,
`search` says which schedule comes next, `shrink` makes a failing one short,
and `telling` writes it down for a person.
"""
