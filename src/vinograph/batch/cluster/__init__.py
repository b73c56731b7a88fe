"""Draws a batch on the machines of a Ray cluster.

:mod:`~vinograph.batch.cluster.connection` connects to one,
:mod:`~vinograph.batch.cluster.dataset` is the Ray dataset, from jobs to their outcomes,
:mod:`~vinograph.batch.cluster.actor` what draws in it, and
:mod:`~vinograph.batch.cluster.run` the driver. Ray decides what runs where.
"""
