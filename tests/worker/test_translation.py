"""What libraries raise, in the words of Larder. The messages here are real ones."""

from __future__ import annotations

import pytest

from worker.errors import LarderError, ModelError, TimedOut
from worker.translation import first_line, translated

MESSAGES = [
    ("Could not locate class 'ScaleShift'. Make sure custom classes are decorated with", "custom-code", "ScaleShift"),
    ("Unknown layer: 'LarderCorpus>TwoTower'. Please ensure you are using", "custom-code", "LarderCorpus>TwoTower"),
    ("Unknown activation function: 'swish2'. Please ensure", "custom-code", "swish2"),
    (
        "Requested the deserialization of a `Lambda` layer whose `function` is a Python lambda. This carries a "
        "potential risk of arbitrary code execution and thus it is disallowed by default.",
        "lambda-refused",
        "Lambda",
    ),
    ("bad marshal data (unknown type code)", "lambda-refused", "Lambda"),
    (
        "A total of 1 objects could not be loaded. Example error message for object <Dense name=head, built=True>:\n\n"
        "Layer 'head' expected 2 variables, but received 0 variables during loading.",
        "weights-mismatch",
        "A total of 1 objects could not be loaded",
    ),
    ("Shape mismatch in layer #2: weight 'kernel' expects (4, 3)", "weights-mismatch", "layer #2"),
    ("Shapes (4, 3) and (4, 2) are incompatible", "weights-mismatch", "(4, 3)"),
    (
        "You called `set_weights(weights)` on layer 'vectorize' with a weight list of length 2",
        "weights-mismatch",
        "length 2",
    ),
    (
        "Unable to synchronously open file (truncated file: eof = 9264, sblock->base_addr = 0, stored_eof = 18528)",
        "corrupt-file",
        "model.h5 is damaged: Unable to synchronously open file (truncated file",
    ),
    ("Error parsing message with type 'tensorflow.SavedModel'", "corrupt-file", "Error parsing message"),
    ("Op type not registered 'MyOp' in binary running on host", "unsupported-operation", "MyOp"),
    ("Something nobody has seen", "model-unreadable", "Something nobody has seen"),
    ("", "model-unreadable", "ValueError"),
]


@pytest.mark.parametrize(("text", "code", "words"), MESSAGES)
def test_messages_get_their_meaning(text: str, code: str, words: str) -> None:
    with pytest.raises(LarderError) as caught, translated("Loading Keras", "model.h5", ModelError):
        raise ValueError(text)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.__cause__ is not None


def test_larder_errors_pass() -> None:
    with pytest.raises(TimedOut), translated("Loading"):
        raise TimedOut(seconds=1, kind="wall")


def test_running_out_of_memory_is_left_to_the_sandbox() -> None:
    with pytest.raises(MemoryError), translated("Loading"):
        raise MemoryError


def test_a_conversion_that_fails_says_what_was_done() -> None:
    with (
        pytest.raises(LarderError, match=r"^Converting A to B failed: no such thing\.$"),
        translated("Converting A to B"),
    ):
        raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo", "one"),
        ("\n\n  one.  \n", "one"),
        ("\x1b[1mbold\x1b[0m", "bold"),
        ("no file /tmp/larder-x/jobs/model.keras here", "no file model.keras here"),
        ("see https://keras.io/guides/x", "see https://keras.io/guides/x"),
        ("x" * 400, "x" * 299 + "…"),
        ("", ""),
    ],
)
def test_the_first_line(text: str, line: str) -> None:
    assert first_line(text) == line
