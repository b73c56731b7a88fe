"""Declares pipeline methods whose work is done by the model's family.

A family's arguments are known only once a model is opened. So a declared method passes all its
arguments to the pipeline, which checks them. Its signature and its documentation serve readers,
editors and type checkers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def dispatched(method: Method) -> Method:
    """Declare a method that every pipeline has."""
    return cast("Method", _forwarding(method))


def dispatched_call(method: Method) -> Method:
    """Declare a method that a pipeline has only if its family makes the call of that name."""
    return cast("Method", _FamilyCall(method))


def _forwarding(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(pipeline: Any, *positional: Any, **named: Any) -> Any:
        return pipeline._dispatch(method.__name__, positional, named)

    return run


class _FamilyCall:
    """Descriptor of a call, which raises AttributeError if the pipeline's family lacks the call.

    Accessed on the class, it returns a plain function.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._name = method.__name__
        self._run = _forwarding(method)

    def __get__(self, pipeline: Any, owner: type[Any] | None = None) -> Any:
        """The function, bound to the pipeline if there is one.

        Raises:
            AttributeError: the pipeline's family makes no such call.
        """
        if pipeline is None:
            return self._run
        if not pipeline._makes(self._name):
            raise AttributeError(self._name)
        return self._run.__get__(pipeline, owner)
