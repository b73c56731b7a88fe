"""The systems that are measured, each as a module that opens it in a process and an environment of its own.

Only `vinograph_` imports Vinograph; the others run where it isn't installed. ``child.py`` finds them by name.
"""
