"""The building blocks of networks: OpenVINO graphs over weights that stay in their files.

:mod:`graph` holds weights under the checkpoint's names and makes graphs, :mod:`values` gives
tensors operators, and :mod:`layers` has the layers that networks share. :mod:`embeddings` has those
of timesteps and sizes. Each network that several families use has a module of its own.
"""
