"""Names and texts of strangers, pushed through upload, inspection, every page, JSON, the table of the history, the
headers of downloads and the log: nothing breaks, nothing is hidden, nothing becomes more than text."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import re
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from models_app.actions import sharing
from models_app.management.commands import _batch, inspect
from models_app.models import (
    SYSTEM,
    Actor,
    Artifact,
    Conversion,
    ModelVersion,
    RegisteredModel,
    Tag,
    Team,
    record,
)
from models_app.models.quarantine import Cause, put_in_quarantine
from project.logs import HideTokens, Lines
from tests.models_app.conftest import LONG, a_report, keras_file, request_conversion
from tests.models_app.hostile_texts import MARKUP, TEXTS
from worker.errors import ConverterFailed, LarderError
from worker.formats._format import LayerRow, Signature, Summary, TensorSpec
from worker.report import Check, Finding, FindingKind, Severity
from worker.visible import said, visible

CASES = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0041]")


class Page(HTMLParser):
    """What a browser would make of a page: elements that it would run, attributes that would call something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.dangers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.dangers += [tag] if tag == "script" and not dict(attrs).get("src") else []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def check_page(response: HttpResponseBase) -> str:
    """A whole page on which nothing is hidden and nothing runs; its text."""
    content = response.content.decode()  # type: ignore[attr-defined]
    assert response.status_code in (200, 400, 404, 409, 422, 423), response.status_code
    assert "Something went wrong" not in content
    assert HIDDEN.search(content) is None, repr(HIDDEN.search(content))
    page = Page(content)
    assert page.dangers == []
    assert MARKUP not in content
    assert settings.SECRET_KEY not in content
    return "".join(page.words)


def check_headers(response: HttpResponseBase) -> None:
    for name, value in response.headers.items():
        assert re.search(r"[\x00-\x1f\x7f]", name + value) is None
        assert value.isascii()


def a_hostile_summary(text: str) -> Summary:
    spec = TensorSpec(text, (None, 4), text)
    called = tuple(Signature(name, (spec,), (spec,)) for name in (text, f"{text}2"))
    return Summary(
        inputs=(spec,),
        outputs=(spec,),
        layers=(LayerRow(text, text, text, text, 3),),
        parameters=10,
        dtypes=(text,),
        custom_objects=(text,),
        producer={text: text},
        signatures=called,
        imports=(text,),
        traits=frozenset({"keras-config", "weights"}),
        refusals={"tflite": text},
    )


@pytest.fixture
def everything(
    version: ModelVersion, alice: User, team: Team
) -> Callable[[str], tuple[dict[str, str], Conversion, Artifact]]:
    """One thing of everything that carries a text, each with this text; and the addresses of what shows it."""

    def make(text: str) -> tuple[dict[str, str], Conversion, Artifact]:
        kept = visible(text)[:100]  # as far as a column takes it
        plain = text.replace("\0", "").encode("utf-8", "replace").decode()  # what a database takes at all
        Team.objects.filter(pk=team.pk).update(name=plain[:100])
        User.objects.filter(pk=alice.pk).update(username=plain[:150])
        RegisteredModel.objects.filter(pk=version.model.pk).update(name=plain[:100])
        finding = FindingKind("odd", Severity.DANGER, "It holds {name}.")(name=text)
        error = ConverterFailed(doing=text, problem=text)
        version.findings_data = [finding.to_json(), Finding("raw", Severity.NOTE, text, {text: text}).to_json()]
        version.summary_data = a_hostile_summary(text).to_json()
        version.upload_name, version.recognised_by = plain[:255], plain[:300]
        version.save()
        report = a_report().to_json()
        rows = [Check(text, None, text, {"layers": [text]}).to_json(), Check("load-back", True, text).to_json()]
        report |= {"checks": rows, "findings": version.findings_data, "versions": {text: text}, "reason": text}
        conversion = request_conversion(version, alice)
        made = version.artifacts.create(
            format="h5", name=plain.replace("/", " ")[:255], sha256="0" * 64, size=7, origin=Artifact.Origin.CONVERTED
        )
        Conversion.objects.filter(pk=conversion.pk).update(
            report_data=report,
            artifact=made,
            options={"signature": text},
            state="failed",
            error=error.to_json(),
            finished_at=timezone.now(),
        )
        failed = request_conversion(version, alice, "json_npz")
        Conversion.objects.filter(pk=failed.pk).update(
            state="failed",
            error=error.to_json(),
            finished_at=timezone.now(),
            stages=[{"at": timezone.now().isoformat(), "text": plain[:120]}],
        )
        put_in_quarantine(SYSTEM, made, Cause.DIFFERS, plain)
        _, token = sharing.create_share_link(Actor.of(alice), version.source, LONG)
        Artifact.objects.filter(pk=version.source.pk).update(name=plain.replace("/", " ")[:255] or "x")
        record(Actor(None, kept, None), Tag.UPLOAD_REFUSED, team, text, message=text, named={text: [text]})
        slug, model = team.slug, version.model.slug
        addresses = {
            "home": reverse("home"),
            "team": reverse("team", args=[slug]),
            "search": f"{reverse('team', args=[slug])}?q={quote(plain)}&format={quote(plain)}",
            "upload": reverse("upload", args=[slug]),
            "members": reverse("members", args=[slug]),
            "shares": reverse("shares", args=[slug]),
            "history": reverse("history", args=[slug]),
            "filtered": f"{reverse('history', args=[slug])}?person={quote(plain)}&since={quote(plain)}",
            "model": reverse("model", args=[slug, model]),
            "version": reverse("version", args=[slug, model, version.number]),
            "conversion": reverse("conversion", args=[conversion.pk]),
            "failed": reverse("conversion", args=[failed.pk]),
            "quarantine": reverse("quarantine", args=[made.pk]),
            "public": reverse("public-share", args=[token]),
            "why": f"{reverse('why-not-pickle')}?version={version.pk}",
            "nowhere": f"/{quote(plain)}",
            "token": f"/s/{quote(plain.replace('/', ''))}/",
            "login": f"/login/?next={quote(plain)}",
        }
        conversion.refresh_from_db()
        return addresses, conversion, Artifact.objects.get(pk=version.source.pk)

    return make


@CASES
def test_every_page_shows_it_and_stays_a_page(as_alice: Client, everything: Any, text: str) -> None:
    addresses, _, _ = everything(text)
    shown = {}
    for name, address in addresses.items():
        response = as_alice.get(address, follow=True)
        check_headers(response)
        shown[name] = check_page(response)
    if text.isprintable() and len(text) < 100:
        assert text in shown["version"]
        assert text in shown["history"]


@CASES
def test_data_of_it_is_whole(as_alice: Client, everything: Any, team: Team, version: ModelVersion, text: str) -> None:
    """JSON holds what was there; each cell of the table is inert text, and each event is one row."""
    _, conversion, _ = everything(text)
    storable = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    report = as_alice.get(reverse("conversion-report", args=[conversion.pk]))
    check_headers(report)
    assert report.json()["checks"][0]["sentence"] == storable
    as_alice.get(reverse("variants", args=[team.slug, version.model.slug, version.number])).json()
    table = as_alice.get(reverse("history-csv", args=[team.slug]))
    check_headers(table)
    content = b"".join(table.streaming_content).decode()  # type: ignore[attr-defined]
    rows = list(csv.reader(io.StringIO(content, newline="")))
    assert len(rows) == team.history.count() + 1
    cells = [cell for row in rows for cell in row]
    assert [cell for cell in cells if cell.strip().startswith(("=", "+", "-", "@", "\uff1d"))] == []
    assert HIDDEN.search(content) is None


@CASES
def test_a_download_is_called_so(as_alice: Client, everything: Any, text: str) -> None:
    _, _, source = everything(text)
    response = as_alice.get(source.download_url)
    assert response.status_code == 200
    check_headers(response)
    assert response["Content-Disposition"].startswith("attachment")
    assert b"".join(response.streaming_content) == keras_file()  # type: ignore[attr-defined]


@CASES
def test_it_is_uploaded_under_that_name(as_alice: Client, team: Team, told: object, text: str) -> None:
    """From a script and from a form; as the new model's name; as the name of a file in an archive."""
    sent = text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace") if "\ud800" not in text else b"a"
    address = reverse("upload-raw", args=[team.slug])
    raw = as_alice.post(f"{address}?name={quote(sent)}.keras", keras_file(), content_type="application/octet-stream")
    assert raw.status_code == 201, raw.content
    name = raw.json()["name"]
    assert HIDDEN.search(name) is None
    assert len(name) <= 255
    finish = reverse("upload-finish", args=[team.slug])
    finished = as_alice.post(finish, {"upload": raw.json()["id"], "name": text.encode("utf-8", "replace")[:100]})
    assert finished.status_code in (201, 400), finished.content
    check_page(as_alice.get(reverse("team", args=[team.slug])))
    for version in ModelVersion.objects.all():
        check_page(as_alice.get(version.get_absolute_url()))
        assert b"".join(as_alice.get(version.source.download_url).streaming_content)  # type: ignore[attr-defined]


def a_zip(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name.encode("utf-8", "replace").decode(), keras_file())
        archive.writestr("notes.txt", "about")
    return buffer.getvalue()


def a_tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for inside, content in ((name.replace("\ud800", ""), keras_file()), ("notes.txt", b"about")):
            info = tarfile.TarInfo(inside)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@CASES
def test_it_is_a_name_in_an_archive(as_alice: Client, team: Team, told: object, text: str) -> None:
    for pack, suffix in itertools.product((a_zip, a_tar), (".keras", ".txt", "/x/model.keras")):
        file = io.BytesIO(pack(f"{text}{suffix}"))
        file.name = "packed.zip"
        response = as_alice.post(reverse("upload", args=[team.slug]), {"files": file}, follow=True)
        check_headers(response)
        check_page(response)
    check_page(as_alice.get(reverse("history", args=[team.slug])))
    for version in ModelVersion.objects.all():
        assert HIDDEN.search(version.source.name) is None
        assert b"".join(as_alice.get(version.source.download_url).streaming_content)  # type: ignore[attr-defined]


@CASES
def test_an_event_is_one_line_of_the_log(text: str) -> None:
    def logged(**more: Any) -> str:
        made = logging.LogRecord("larder", logging.WARNING, "", 0, "cannot open %s", (text,), **more)
        HideTokens().filter(made)
        return Lines("{asctime} {levelname} {name} {message}", style="{").format(made)

    assert HIDDEN.search(logged(exc_info=None)) is None
    assert len(logged(exc_info=None).splitlines()) == 1
    try:
        raise LarderError(reference=text) from ValueError(text)
    except LarderError as error:
        first, *rest = logged(exc_info=(type(error), error, error.__traceback__)).splitlines()
    assert first.count("WARNING") == 1
    assert rest
    assert [line for line in rest if not line.startswith("    ")] == []
    assert HIDDEN.search("".join(rest)) is None
    assert json.dumps(first).isascii()


@CASES
def test_it_commands_no_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says of a model: none of its names begins a line, or is more than text."""
    out = io.StringIO()
    row = _batch.Row("given.keras", "keras", more={"recognised_by": "", "summary": a_hostile_summary(text).to_json()})
    command = inspect.Command(stdout=out)
    monkeypatch.setattr(_batch, "Zygote", lambda **_: nullcontext())
    monkeypatch.setattr(_batch, "_settle", lambda row, *_: row)
    _batch.work_through(command, {"json": False, "allow_custom_code": False}, [row], print, inspect._describe)
    first, *rest = out.getvalue().splitlines()
    assert first.startswith("readable given.keras")
    assert HIDDEN.search(out.getvalue()) is None
    assert [line for line in rest[:-1] if not line.startswith("         ")] == []


@CASES
def test_a_sentence_stays_a_sentence(text: str) -> None:
    error, finding = ConverterFailed(doing=text, problem=text), FindingKind("odd", Severity.NOTE, "It is {x}.")(x=text)
    for sentence in (error.message, finding.sentence):
        assert HIDDEN.search(sentence) is None
        assert "\n" not in sentence
        assert len(sentence) < 2_500
    assert finding.data == {"x": text}
    assert error.details["doing"] == text
    assert said(7) == 7
