"""A family that is no part of the package: a test adds it to a copy, to see that a folder and a line are enough.

It smooths noise, in as many steps as are asked for, and gives it the colours that a prompt stands for.
"""
