"""The pictures of a report: every number is there as text, and nothing that the strict policy would block."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import pytest
from django.template import Context, Template

from models_app.templatetags import proof
from models_app.templatetags.proof import bar_length, losing_layers, share, undecided
from worker.report import Check, Report, Verdict

LAYERS = [{"name": "edges", "gap": 3e-8, "result": "m/edges"}, {"name": "<b>mix</b>", "gap": 0.41, "result": "m/mix"}]
CELLS: list[dict[str, Any]] = [
    {
        "label": "ONNX Runtime",
        "version": "1.32.0",
        "verdict": "same",
        "gap": 8e-8,
        "said": "",
        "draws": 9,
        "rows": 1041,
    },
    {"label": "TensorFlow.js", "version": "", "verdict": "absent", "gap": None, "said": "not present here"},
]
REPORT = Report("keras", "onnx", ("keras", "onnx"), Verdict.DIFFERS, "", (), (), {}, 1, 1.0)


def page(tag: str, *checks: Check) -> str:
    report = dataclasses.replace(REPORT, checks=checks)
    return Template("{% load proof %}{% " + tag + " report %}").render(Context({"report": report}))


def test_every_layer_has_a_bar_and_its_number() -> None:
    html = page("drift", Check("drift", False, "", {"first": "<b>mix</b>", "layers": LAYERS}))
    assert re.findall(r'class="much" width="(\d+)"', html) == ["6", "95"]
    assert "3.0e-08" in html
    assert "41 %" in html
    assert html.count("departs first") == 1
    assert "&lt;b&gt;mix&lt;/b&gt;" in html
    assert "style=" not in html


def test_every_runtime_is_a_row() -> None:
    html = page("load_back", Check("load-back", True, "", {"cells": CELLS}))
    assert "ONNX Runtime 1.32.0" in html
    assert "Same answers" in html
    assert "8.0e-08" in html
    assert "9 draws, 1,041 rows" in html
    assert "Not run here" in html
    assert "Not present here" in html
    assert "they compare where those are the same" not in html  # one runtime answered


def test_runtimes_that_were_asked_different_draws_are_not_compared() -> None:
    few = {"label": "OpenVINO", "version": "1", "verdict": "same", "gap": 1e-9, "said": "", "draws": 1, "rows": 1}
    html = page("load_back", Check("load-back", True, "", {"cells": [CELLS[0], few]}))
    assert "1 draw, 1 row<" in html
    assert "they compare where those are the same" in html
    alike = {**few, "draws": 9, "rows": 1041}
    html = page("load_back", Check("load-back", True, "", {"cells": [CELLS[0], alike]}))
    assert "they compare where those are the same" not in html


def test_answers_that_prove_nothing_were_given() -> None:
    cell = {**CELLS[0], "verdict": "absent", "said": "its answers lie about as far as rounding goes"}
    html = page("load_back", Check("load-back", None, "", {"cells": [cell]}))
    assert "Not told" in html
    assert "Not run here" not in html


def badge(check: Check) -> str:
    html = Template('{% include "conversions/_checks.html" %}').render(Context({"checks": [check]}))
    return " ".join(re.findall(r'class="badge (.*?)">.*?</svg>\s*(.*?)</span>', html, re.DOTALL)[0])


UNSEEN = [["head", f"head/{number}"] for number in range(50)]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (Check("sensitivity", True, "", {"share": 1.0, "unseen": []}), "good check Passed"),
        (Check("sensitivity", True, "", {"share": 0.995, "unseen": UNSEEN[:1]}), "good check Passed"),
        (Check("sensitivity", True, "", {"share": 0.93, "unseen": UNSEEN}), "warn check In part"),
        (Check("sensitivity", True, "", {"share": 0.5, "twin": True}), "good check By its twin"),
        (Check("values", True, ""), "good check Passed"),
        (Check("values", False, ""), "bad check Failed"),
    ],
)
def test_a_check_is_green_where_it_shows_all_that_it_should(check: Check, said: str) -> None:
    assert badge(check) == said


def test_what_would_not_show_is_named() -> None:
    check = Check("sensitivity", True, "", {"share": 0.9, "unseen": UNSEEN})
    html = Template('{% include "conversions/_checks.html" %}').render(Context({"checks": [check]}))
    assert "50 tensors in which a fault would not show" in html
    assert "head/0, head/1" in html
    assert "and 10 more in the report as JSON" in html
    other = Template('{% include "conversions/_checks.html" %}').render(
        Context({"checks": [Check("values", True, "")]})
    )
    assert "would not show" not in other


@pytest.mark.parametrize(
    ("kind", "said"), [("random", "The model answers by chance"), ("stateful", "The model changes as it runs")]
)
def test_a_model_that_is_random_by_design_has_not_failed(kind: str, said: str) -> None:
    checks = (Check("steady", None, "The source answers …", {"kind": kind}),)
    report = dataclasses.replace(REPORT, verdict=Verdict.NOT_PROVABLE, checks=checks)
    shown = Template('{% include "conversions/_verdict.html" %}')
    html = shown.render(Context({"report": report, "runs_here": True}))
    assert f"Converted. {said}" in html
    assert "could not be proven" not in html
    plain = dataclasses.replace(report, checks=(Check("values", None, ""),))
    assert "could not be proven" in shown.render(Context({"report": plain, "runs_here": True}))


def test_the_bar_is_that_of_the_check() -> None:
    from worker.verify import sensitivity

    assert proof.BAR == sensitivity.BAR


@pytest.mark.parametrize(
    ("check", "word"),
    [
        (Check("weights", None, "", {"tensors": 3, "unmatched": ["b"]}), "In part"),
        (Check("weights", None, "", {"tensors": 1, "unmatched": ["b"]}), "Not made"),
        (Check("weights", None, ""), "Not made"),
        (Check("sensitivity", None, "", {"seen": 7}), "In part"),
        (Check("sensitivity", None, "", {"seen": 0}), "Not made"),
        (Check("values", None, "", {"explained": True}), "Unproven"),
        (Check("unrounded", None, ""), "Unproven"),
        (Check("values", None, ""), "Not made"),
        (Check("steady", None, "", {"kind": "random"}), "By chance"),
        (Check("steady", None, "", {"kind": "stateful"}), "Changes"),
        (Check("load-back", None, "", {"cells": CELLS[::-1]}), "In part"),
        (Check("load-back", None, "", {"cells": CELLS[1:]}), "Not made"),
    ],
)
def test_what_a_check_that_is_undecided_is_called(check: Check, word: str) -> None:
    assert undecided(check) == word
    html = Template('{% include "conversions/_checks.html" %}').render(Context({"checks": [check]}))
    assert word in html


def test_the_layers_that_lose_most_can_be_asked_to_stay() -> None:
    layers = [
        {"name": name, "gap": gap, "result": ""} for name, gap in zip("abcde", (0.1, 0.4, 0.3, 0.35, 0.36), strict=True)
    ]
    report = dataclasses.replace(REPORT, target="tflite", checks=(Check("drift", True, "", {"layers": layers}),))
    assert losing_layers(report, {"precision": "int8"}) == ["b", "a", "d"]
    assert losing_layers(report, {"precision": "float16"}) == []
    assert losing_layers(dataclasses.replace(report, target="onnx"), {"precision": "int8"}) == []
    assert losing_layers(REPORT, {"precision": "int8"}) == []
    named = {name: SimpleNamespace(slug=name) for name in ("team", "model")}
    asked = SimpleNamespace(target="tflite", options={"precision": "int8", "keep_float": "e"})
    context = {**named, "version": SimpleNamespace(number=1), "report": report, "conversion": asked}
    shown = Template('{% include "conversions/_keep_float.html" %}')
    html = shown.render(Context({**context, "may": SimpleNamespace(convert=True)}))
    assert "<strong>b</strong>, <strong>a</strong>, <strong>d</strong>" in html
    assert re.findall(r'name="(tflite\.\w+)"\s+value="(\w+)"', html) == [
        ("tflite.precision", "int8"),
        ("tflite.keep_float", "3"),
    ]
    assert shown.render(Context({**context, "may": SimpleNamespace(convert=False)})).strip() == ""


@pytest.mark.parametrize("tag", ["drift", "load_back"])
def test_without_a_check_there_is_no_picture(tag: str) -> None:
    assert page(tag).strip() == ""
    assert page(tag, Check("drift", None, ""), Check("load-back", None, "")).strip() == ""


@pytest.mark.parametrize(
    ("gap", "text", "length"),
    [
        (0.0, "0", 0),
        (1e-9, "1.0e-09", 0),
        (1e-4, "0.01 %", 50),
        (0.041, "4.1 %", 83),
        (1.0, "100 %", 100),
        (30, "3,000 %", 100),
    ],
)
def test_a_bar_is_as_long_as_its_order_of_magnitude(gap: float, text: str, length: int) -> None:
    assert share(gap) == text
    assert bar_length(gap) == length
