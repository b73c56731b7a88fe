"""Methods that are declared with a signature, and done by the pipeline's family.

What a family takes is known only when a model is opened. So a declared method hands all that it is
given to the pipeline, which checks it. Its signature and its documentation are for readers, editors
and type checkers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def dispatched(method: Method) -> Method:
    """A method that every pipeline has."""
    return cast("Method", _handing_on(method))


def dispatched_call(method: Method) -> Method:
    """A method that only those pipelines have whose family makes the call of that name."""
    return cast("Method", _FamilyCall(method))


def _handing_on(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(pipeline: Any, *positional: Any, **named: Any) -> Any:
        return pipeline._dispatch(method.__name__, positional, named)

    return run


class _FamilyCall:
    """The descriptor of a call: a plain function of the class, and missing in pipelines whose family lacks it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._name = method.__name__
        self._run = _handing_on(method)

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
