"""Choosing one of a model's signatures: what the page shows, what is asked for, and what the command line says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from models_app.actions import samples
from models_app.models import Actor, Conversion, ModelVersion
from models_app.views.reports import document
from tests.formats.test_signatures import three_ways
from tests.models_app.cli import borrow, run
from tests.models_app.conftest import a_report, request_conversion
from worker import tasks
from worker.errors import BadOption, NoRoute
from worker.formats._format import Signature, Summary, TensorSpec
from worker.sandbox.client import Zygote

X, Z, TEXT = TensorSpec("x", (None, 4), "float32"), TensorSpec("z", (None, 3), "float32"), TensorSpec("t", (), "string")
SERVING = Signature("serving_default", (X,), (Z,))
SEVERAL = Summary(
    inputs=(X,),
    outputs=(Z,),
    signatures=(
        SERVING,
        Signature("serve", (X,), (Z,), same_as="serving_default"),
        Signature("decode", (Z,), (X,)),
        Signature("measure", (TEXT,), (), frozenset({"strings"})),
    ),
    traits=frozenset({"weights", "variables"}),
)


def give(version: ModelVersion, summary: Summary) -> ModelVersion:
    version.artifacts.update(format="saved_model")
    ModelVersion.objects.update(summary_data=summary.to_json())
    version.refresh_from_db()
    return version


@pytest.fixture
def several(version: ModelVersion) -> ModelVersion:
    return give(version, SEVERAL)


def offer(client: Client, version: ModelVersion, slug: str) -> Any:
    context = client.get(version.get_absolute_url()).context
    return next(found for found in context["offers"] if found.format.slug == slug)


def choices(row: Any) -> list[str]:
    return [value for item in row.options if item.option.name == "signature" for value, _ in item.choices]


# The pages --------------------------------------------------------------------------------------------------------


def test_it_works(as_bob: Client, several: ModelVersion) -> None:
    text = " ".join(as_bob.get(several.get_absolute_url()).content.decode().split())
    assert "serving_default, decode, measure" in text
    assert 'another name of <span class="mono">serving_default</span>' in text
    assert '<th scope="row" class="mono">t</th> <td class="mono">()</td> <td class="mono">string</td>' in text
    assert 'name="tflite.signature"' in text
    as_bob.post(f"{several.get_absolute_url()}convert/", {"target": "onnx", "onnx.signature": "decode"})
    conversion = Conversion.objects.get()
    assert conversion.options == {"opset": 18, "external_data": False, "signature": "decode"}
    assert conversion.title == "ONNX (opset 18, signature decode)"
    page = as_bob.get(conversion.get_absolute_url())
    assert page.context["route"] == ["SavedModel", "ONNX"]


def test_only_where_there_is_a_choice(as_bob: Client, several: ModelVersion) -> None:
    assert choices(offer(as_bob, several, "frozen_graph")) == ["serving_default", "decode", "measure"]
    assert choices(offer(as_bob, several, "tflite")) == ["serving_default", "decode"]  # it works on no text
    assert choices(offer(as_bob, several, "keras")) == []
    give(several, Summary(inputs=(X,), outputs=(Z,), signatures=(SERVING,), traits=SEVERAL.traits))
    assert choices(offer(as_bob, several, "frozen_graph")) == []


def test_a_format_that_only_another_one_can_become(as_bob: Client, several: ModelVersion) -> None:
    text = Signature("serving_default", (TEXT,), (), frozenset({"strings"}))
    wordy = Summary(signatures=(text, SEVERAL.signatures[2]), traits=frozenset({"weights", "strings"}))
    row = offer(as_bob, give(several, wordy), "tflite")
    assert (row.state, choices(row)) == ("available", ["decode"])


def test_the_usual_one_is_what_is_made_anyway(several: ModelVersion, alice: User) -> None:
    first = request_conversion(several, alice, "tflite")
    for name in ("serving_default", "serve"):
        assert request_conversion(several, alice, "tflite", signature=name) == first
    assert request_conversion(several, alice, "tflite", signature="decode") != first


def test_what_cannot_be_is_refused_at_once(several: ModelVersion, alice: User) -> None:
    with pytest.raises(BadOption, match="'nope' is not one of serving_default, decode, measure"):
        request_conversion(several, alice, "onnx", signature="nope")
    with pytest.raises(NoRoute, match="does not work on text"):
        request_conversion(several, alice, "tflite", signature="measure")
    with pytest.raises(BadOption):
        request_conversion(give(several, Summary(traits=SEVERAL.traits)), alice, "onnx", signature="decode")
    assert not Conversion.objects.exists()


def test_samples_are_of_the_usual_one(several: ModelVersion, alice: User) -> None:
    samples.give_samples(Actor.of(alice), several, [SimpleUploadedFile("rows.csv", b"1,2,3,4\n")])
    assert request_conversion(several, alice, "onnx").samples is not None
    assert request_conversion(several, alice, "onnx", signature="decode").samples is None


def test_the_file_is_called_after_it(several: ModelVersion) -> None:
    name = tasks.download_name(several, "tflite", {"precision": "int8", "signature": "decode"}, Path("x.tflite"))
    assert name == "soup-v1-int8-decode.tflite"


def test_the_check_is_repeated_with_it(several: ModelVersion, alice: User) -> None:
    conversion = request_conversion(several, alice, "onnx", signature="decode")
    made = several.artifacts.create(format="onnx", name="soup.onnx", sha256="0" * 64, size=1, origin="converted")
    report = a_report().to_json()
    Conversion.objects.update(state="succeeded", finished_at=timezone.now(), artifact=made, report_data=report)
    conversion.refresh_from_db()
    assert "--option signature=decode" in document(conversion)["repeat"]["command"]


# The command line -------------------------------------------------------------------------------------------------


def test_on_the_command_line(zygote: Zygote, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    borrow(zygote, monkeypatch)
    source = three_ways(tmp_path / "module")
    told = run("inspect", source).text
    assert (
        "signature decode: z (?×3, float32), shift (?×5, float32) -> raw (?×5, float32), likely (?×5, float32)" in told
    )
    assert "signature also: another name of serving_default" in told
    asked = ("--option", "signature=decode", "--json")
    made = run("convert", source, "--to", "frozen_graph", "--out", tmp_path / "out", *asked)
    [row] = made.rows
    assert (made.status, row["verdict"]) == (0, "verified")
    assert run("verify", source, row["output"], *asked).status == 0
    assert run("verify", source, row["output"], "--json").status == 3
    unknown = run("convert", source, "--to", "onnx", "--out", tmp_path / "out", "--option", "signature=nope", "--json")
    assert (unknown.status, json.loads(unknown.text)["error"]["code"]) == (3, "bad-option")
