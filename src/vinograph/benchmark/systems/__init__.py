"""The measured systems: each module opens one, in a process and an environment of its own.

Only ``vinograph_`` imports Vinograph; the others run where it isn't installed. ``child.py`` imports
them by name.
"""
