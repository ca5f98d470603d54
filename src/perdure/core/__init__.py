"""The pure heart: given a run's records and one new event, it answers with commands.

No clock, no randomness, no disk, no threads, and nothing of ours but `errors`.
"""
