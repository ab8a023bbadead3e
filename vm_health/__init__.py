"""The pure core: what "healthy" means and what to do about it.

Standard library only, no I/O, no clock, no environment. Both sides share it.
"""
