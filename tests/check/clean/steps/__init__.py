"""All the faults there are, where they belong: in steps, and in code that no workflow calls."""
