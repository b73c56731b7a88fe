"""Many prompts on one machine: rows of a file become keys, and keys become files.

:mod:`~vinograph.batch.rows` reads the file, :mod:`~vinograph.batch.pictures` makes a list of
pictures of it, :mod:`~vinograph.batch.keys` names each one, :mod:`~vinograph.batch.index` knows
which are done, and :mod:`~vinograph.batch.store` holds the files. None of them knows who draws:
that is for :mod:`~vinograph.batch.processes`.
"""
