"""The whole engine, simulated: one thread, virtual time, chance from one seed.

What runs is the real thing: `Engine`, its driver, inbox and timers, and SQLite. Only
what would bring in another order is replaced: the event loop's clock (`loop`), the
writer's thread and those that read (`engine`), and chance. `programs` makes workflows, `clients`
drive them, `world` breaks things meanwhile and `witness` looks on: it raises where a law is broken.

The law: the same seed gives the same trace, to the last byte.
"""
