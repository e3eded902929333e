"""The kernel ``numba``: the selective scan on a CPU. README.md explains it."""
