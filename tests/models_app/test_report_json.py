"""The report as one JSON document: its schema is documented, and it says how to repeat the check at home."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app.models import Artifact, Conversion, ModelVersion
from tests.models_app.conftest import a_report, request_conversion
from tests.models_app.engine import FakeEngine, convert_as, engine
from worker.report import SCHEMA, Report, Verdict

__all__ = ["engine"]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "report.md"
OPEN = ("versions", "data", "options")  # whose keys are names of things


@pytest.fixture
def conversion(version: ModelVersion, alice: User, engine: FakeEngine) -> Conversion:
    return convert_as(engine, version, alice, Verdict.VERIFIED)[0]


def read(client: Client, conversion: Conversion) -> Any:
    answer = client.get(f"{conversion.get_absolute_url()}report.json")
    assert answer["Content-Disposition"].startswith("attachment;")
    return json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def keys(value: Any, before: str = "") -> Iterator[str]:
    """Every key with the ones above it: ``files.result.sha256``."""
    for each in value if isinstance(value, list) else []:
        yield from keys(each, before)
    for name, inner in value.items() if isinstance(value, dict) else []:
        yield f"{before}{name}"
        if name not in OPEN:
            yield from keys(inner, f"{before}{name}.")


def test_it_works(as_vera: Client, conversion: Conversion) -> None:
    said = read(as_vera, conversion)
    assert (said["schema"], said["verdict"]) == (SCHEMA, "verified")
    assert Report.from_json(said) == a_report()
    assert said["conversion"]["id"] == str(conversion.pk)
    assert said["files"]["source"]["sha256"] == conversion.version.source.sha256
    assert said["files"]["result"]["name"] == "soup-v1.h5"
    assert said["quarantine"] == []


def test_every_key_is_documented_and_nothing_else(
    as_vera: Client, as_alice: Client, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    conversion, kept = convert_as(engine, version, alice)
    reason = {"reason": "The head that differs is not used."}
    assert as_alice.post(f"/files/{kept.pk}/quarantine/release/", reason).status_code == 302
    inputs = version.samples.create(name="a b.npz", sha256="0" * 64, size=7, given_by=alice)
    Conversion.objects.update(samples=inputs)
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(set(keys(read(as_vera, conversion)))) == sorted(documented)


def test_the_documented_number_is_the_schema() -> None:
    assert f'"schema": {SCHEMA}' in DOCS.read_text(encoding="utf-8")


def test_outsiders_have_no_report(as_charlie: Client, conversion: Conversion) -> None:
    assert as_charlie.get(f"{conversion.get_absolute_url()}report.json").status_code == 404


def test_how_to_repeat_it(as_vera: Client, conversion: Conversion) -> None:
    repeat = read(as_vera, conversion)["repeat"]
    assert repeat == {
        "install": "python -m pip install keras==3.15.1",
        "node": "",
        "command": "python manage.py verify soup.keras soup-v1.h5",
    }
    page = as_vera.get(conversion.get_absolute_url()).content.decode()
    assert repeat["install"] in page
    assert repeat["command"] in page


def test_with_its_options(as_vera: Client, version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    asked = request_conversion(version, alice, "tflite", precision="int8")
    Conversion.objects.filter(pk=asked.pk).update(
        options={"precision": "int8", "whole": True}, report_data=a_report().to_json(), artifact=version.source
    )
    command = read(as_vera, asked)["repeat"]["command"]
    assert shlex.split(command)[5:] == ["--option", "precision=int8", "--option", "whole=true"]


def test_with_its_samples(as_vera: Client, conversion: Conversion, alice: User) -> None:
    given = conversion.version.samples.create(name="ours/a b.npz", sha256="0" * 64, size=7, given_by=alice)
    Conversion.objects.update(samples=given)
    said = read(as_vera, conversion)
    assert shlex.split(said["repeat"]["command"])[-2:] == ["--inputs", "a b.npz"]
    assert said["files"]["samples"] == {"name": "ours/a b.npz", "sha256": "0" * 64, "size": 7}


@pytest.mark.parametrize("name", ["-rf.keras", "a b'; rm -rf $HOME.keras", "$(id).keras"])
def test_names_are_hostile_text(as_vera: Client, conversion: Conversion, name: str) -> None:
    Artifact.objects.filter(origin="uploaded").update(name=name)
    words = shlex.split(read(as_vera, conversion)["repeat"]["command"])
    assert words[:3] == ["python", "manage.py", "verify"]
    assert words[3].removeprefix("./") == name
    assert not words[3].startswith("-")


def test_nothing_to_repeat_without_a_result(as_vera: Client, version: ModelVersion, alice: User) -> None:
    asked = request_conversion(version, alice)
    Conversion.objects.update(report_data=a_report(Verdict.DIFFERS).to_json())
    said = read(as_vera, asked)
    assert (said["repeat"], said["files"]["result"], said["quarantine"]) == (None, None, [])


def test_a_report_from_before_schemas_had_numbers(as_vera: Client, conversion: Conversion) -> None:
    old = a_report().to_json()
    del old["schema"]
    Conversion.objects.update(report_data=old)
    assert read(as_vera, conversion)["schema"] == SCHEMA


@pytest.mark.parametrize("given", [3, "2.0; rm -rf ~", "2.0 --index-url=http://evil", "", None, "2.0\n"])
def test_what_a_job_says_of_its_libraries_is_not_printed_for_people_to_run(
    as_vera: Client, conversion: Conversion, given: object
) -> None:
    versions = {"python": "3.11.9", "keras": "3.15.1", "ai-edge-litert": "1.2+cpu", "evil": "1.0", "numpy": given}
    Conversion.objects.update(report_data=a_report().to_json() | {"versions": versions})
    assert (
        read(as_vera, conversion)["repeat"]["install"] == "python -m pip install ai-edge-litert==1.2+cpu keras==3.15.1"
    )


def test_runtimes_that_took_part_are_installed_too(as_vera: Client, conversion: Conversion) -> None:
    """Those that no format of the route needs: the load-back asked them."""
    versions = {"keras": "3.15.1", "openvino": "2026.4.1", "@tensorflow/tfjs-core": "4.22.0", "node": "20.1.0"}
    Conversion.objects.update(report_data=a_report().to_json() | {"versions": versions})
    repeat = read(as_vera, conversion)["repeat"]
    assert repeat["install"] == "python -m pip install keras==3.15.1 openvino==2026.4.1"
    assert repeat["node"].startswith("scripts/setup  # TensorFlow.js")
    assert repeat["node"] in as_vera.get(conversion.get_absolute_url()).context["repeat"]


def test_without_any_library(as_vera: Client, conversion: Conversion) -> None:
    Conversion.objects.update(report_data=a_report().to_json() | {"versions": {"evil": "1.0"}})
    assert read(as_vera, conversion)["repeat"]["install"] == ""
    assert "pip install" not in as_vera.get(conversion.get_absolute_url()).context["repeat"]


def test_several_samples_have_no_name(as_vera: Client, conversion: Conversion, alice: User) -> None:
    name = "cat.png + 3 more"
    given = conversion.version.samples.create(name=name, sha256="0" * 64, size=7, given_by=alice)
    Conversion.objects.update(samples=given)
    assert shlex.split(read(as_vera, conversion)["repeat"]["command"])[-2:] == ["--inputs", "SAMPLES"]
    page = " ".join(as_vera.get(conversion.get_absolute_url()).content.decode().split())
    assert f"<code>SAMPLES</code> stands for a folder, or a ZIP, with {name}." in page
