"""tf-keras as a loader of files that anybody wrote: what of it is replaced while it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worker.errors import ModelError
from worker.formats._architecture import Node, is_lambda, objects


@contextmanager
def reading(*described: Any) -> Iterator[None]:
    """Let tf-keras load a model in this block, all of whose descriptions are ``described``, as parsed by Larder.

    tf-keras runs the byte code of a Lambda layer whatever it is asked for, so that none may be in them: not that of a
    layer which is understood, and not with anybody's consent.
    """
    if any(map(_holds_code, objects(list(described)))):
        raise ModelError(problem="tf-keras would run the Python code of its Lambda layers")
    from tf_keras.src.engine import functional
    from tf_keras.src.layers.rnn import gru_lstm_utils

    gradients, connect = gru_lstm_utils.function_register, functional.reconstruct_from_config
    gru_lstm_utils.function_register = _without_gradients
    functional.reconstruct_from_config = _ending(connect)
    try:
        yield
    finally:
        gru_lstm_utils.function_register = gradients
        functional.reconstruct_from_config = connect


def _holds_code(node: Node) -> bool:
    return is_lambda(node) or node["class_name"] == "__lambda__"


def _without_gradients(function: Any, *args: Any, **kwargs: Any) -> Any:
    """LSTM and GRU for running alone: tf-keras makes their gradients for two kinds of processors, which is four fifths
    of the time that such a model takes to open."""
    concrete = function.get_concrete_function(*args, **kwargs)
    concrete.add_to_graph()
    return concrete


def _ending(connect: Callable[..., Any]) -> Callable[..., Any]:
    """tf-keras goes round and round where a layer is fed by a call that the description does not hold. It writes such
    descriptions itself, of a layer that two inputs share where an inner model is made of one of both calls."""

    def bounded(config: Any, *args: Any, **kwargs: Any) -> Any:
        return connect({**config, "layers": _Rounds(config["layers"])}, *args, **kwargs)

    return bounded


class _Rounds(list[Any]):
    """The layers of a network, for as many rounds as can place a call each."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__(layers)
        self.left = 2 + sum(len(layer.get("inbound_nodes") or ()) for layer in layers)

    def __iter__(self) -> Iterator[Any]:
        self.left -= 1
        if self.left < 0:
            raise ModelError(problem="a layer is fed by a call of another one that its description does not hold")
        return super().__iter__()
