"""Adapters: LoRA and its kin. A file becomes differences of a model's named weights.

:mod:`.file` reads it, :mod:`.keys` and :mod:`.matching` find the weights that its keys mean,
:mod:`.kinds` computes their differences, and :mod:`.adaptation` applies them to a model's
components. What the keys of a family's adapters look like is the family's to say.
"""
