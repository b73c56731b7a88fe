"""What networks are built from, as OpenVINO graphs over weights that stay in their files.

:mod:`graph` has weights by the checkpoint's names and values with operators, :mod:`layers` the layers that most
networks share, :mod:`embeddings` sinusoids of times and sizes. Networks that several families use have a module each.
"""
