"""Every error has its code, its sentence, and comes over the pipe as it was."""

from __future__ import annotations

import json
import string

import pytest

from worker import errors
from worker.errors import LarderError, from_json

CLASSES = list(errors.classes())


def details_of(error: type[LarderError]) -> dict[str, str]:
    """A value for every field of the sentence."""
    fields = [name for _, name, _, _ in string.Formatter().parse(error.__doc__ or "") if name]
    return {name: f"<{name}>" for name in fields}


def test_it_works() -> None:
    error = errors.EmptyFile(name="soup.keras")
    assert error.code == "empty-file"
    assert error.message.startswith("soup.keras is empty: it has 0 bytes.")
    assert str(error) == error.message


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_every_sentence_is_filled_and_is_a_sentence(kind: type[LarderError]) -> None:
    message = kind(**details_of(kind)).message
    assert message[0].isupper() or message[0] in "<`"
    assert message.endswith((".", ">"))
    assert "\n" not in message
    assert "  " not in message
    assert all(f"<{name.strip('<>')}>" in message for name in details_of(kind).values())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_errors_cross_the_pipe(kind: type[LarderError]) -> None:
    error = kind(**details_of(kind))
    again = from_json(json.loads(json.dumps(error.to_json())))
    assert type(again) is kind
    assert again.message == error.message


def test_codes_are_unique_and_speak_one_style() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))
    assert all(code == code.lower() and set(code) <= set(string.ascii_lowercase + "-") for code in codes)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_missing_detail_reads_as_a_dash(kind: type[LarderError]) -> None:
    assert "{" not in kind().message


@pytest.mark.parametrize(
    "data", [{}, {"code": "no-such"}, {"code": 7}, {"code": "internal", "details": [1]}, {"code": None}]
)
def test_an_unknown_error_is_the_unforeseen_one(data: dict[str, object]) -> None:
    assert type(from_json(data)) is LarderError


def test_braces_in_a_detail_are_not_fields() -> None:
    """A name that people chose can be anything; format fields in it must not be looked up."""
    hostile = "{0.__class__} {name} {{}}"
    assert errors.EmptyFile(name=hostile).message.startswith(hostile)
    assert from_json(errors.EmptyFile(name=hostile).to_json()).message.startswith(hostile)
