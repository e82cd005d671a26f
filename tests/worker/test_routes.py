"""Routes: the shortest way through the registry, and the reason where there is none."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker import toy_formats
from tests.worker.toy_formats import copying, toy
from worker import formats, routes
from worker.errors import FormatUnavailable, NoRoute, TooLargeForTarget, UnknownTarget
from worker.formats import _outline
from worker.formats._format import Converter, Format, Room, Signature, Summary

WHOLE = Summary(traits=frozenset({"keras-config", "weights"}))
GRAPH_ONLY = Summary(traits=frozenset({"weights"}))
SERVING = Signature("serving_default")
NEEDS_LAYERS = dataclasses.replace(copying(), requires=frozenset({"keras-config"}))


def test_it_works() -> None:
    assert routes.find_route("keras", "h5", WHOLE) == ("keras", "h5")


@pytest.mark.parametrize("source", ["keras", "h5", "json_npz", "weights_h5", "saved_model"])
@pytest.mark.parametrize("target", ["keras", "h5", "json_npz", "weights_h5", "saved_model"])
def test_every_direction_of_the_four_known_ways(source: str, target: str) -> None:
    if (source, target) != ("saved_model", "saved_model"):
        assert routes.find_route(source, target, WHOLE) == (source, target)


@pytest.mark.parametrize("target", ["keras", "h5", "json_npz", "weights_h5"])
def test_a_graph_does_not_become_layers(target: str) -> None:
    with pytest.raises(NoRoute) as caught:
        routes.find_route("saved_model", target, GRAPH_ONLY)
    assert "it holds a graph of operations, not Keras layers" in caught.value.message
    assert caught.value.message.startswith(f"SavedModel cannot become {formats.get(target).label}: ")


def test_the_page_and_the_refusal_say_the_same() -> None:
    for offer in routes.offers("saved_model", GRAPH_ONLY):
        if offer.error:
            with pytest.raises(type(offer.error)) as caught:
                routes.find_route("saved_model", offer.format.slug, GRAPH_ONLY)
            assert caught.value.message == offer.error.message


def test_nothing_becomes_a_pickle() -> None:
    with pytest.raises(NoRoute, match="a pickle is a program"):
        routes.find_route("keras", "pickle", WHOLE)


def test_there_is_an_offer_for_every_format() -> None:
    slugs = [offer.format.slug for offer in routes.offers("keras", WHOLE)]
    assert slugs == list(formats.formats())


WITH_LAYERS = sorted(slug for slug, item in formats.formats().items() if "architecture" in item.keeps)


@pytest.mark.parametrize("slug", formats.formats())
def test_what_keeps_layers_is_written_anew_and_nothing_else(slug: str) -> None:
    [offer] = [offer for offer in routes.offers(slug, WHOLE) if offer.format.slug == slug]
    if slug in WITH_LAYERS and not offer.format.no_way_in:
        assert (offer.route, offer.renews) == ((slug, slug), True)
    else:
        assert offer.error
        assert (offer.format.no_way_in or "in that format already, and only formats that") in offer.error.message
    assert {other.format.slug for other in routes.offers(slug, WHOLE) if other.renews} <= {slug}


def test_what_lacks_its_layers_is_not_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_formats.install(monkeypatch, {"a": toy("A", {"a": NEEDS_LAYERS})})
    with pytest.raises(NoRoute, match="not Keras layers"):
        routes.find_route("a", "a", GRAPH_ONLY)


def test_what_is_written_anew_takes_one_step_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    around = {"a": toy("A", {"b": copying()}), "b": toy("B", {"a": copying()}), "c": toy("C", {"b": copying()})}
    toy_formats.install(monkeypatch, around)
    with pytest.raises(NoRoute, match="in that format already"):
        routes.find_route("a", "a", WHOLE)
    toy_formats.install(monkeypatch, {**around, "a": toy("A", {"a": copying(), "b": copying()})})
    assert routes.find_route("a", "a", WHOLE) == ("a", "a")
    assert routes.find_route("a", "c", WHOLE) == ("a", "b", "c")
    with pytest.raises(NoRoute, match=r"A cannot become A: it has no word for Mixing\."):
        routes.find_route("a", "a", dataclasses.replace(WHOLE, refusals={"a": "it has no word for Mixing."}))


def test_an_unknown_target_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownTarget, match=r"There is no format called betamax\. Known: .*keras"):
        routes.find_route("keras", "betamax", WHOLE)


def test_the_shortest_way_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {"b": toy("B", {"a": copying()}), "c": toy("C", {"b": copying()}), "d": toy("D", {"c": copying()})}
    toy_formats.install(monkeypatch, {"a": toy("A"), **chain})
    assert routes.find_route("a", "d", WHOLE) == ("a", "b", "c", "d")
    shortcut = {**chain, "a": toy("A", converts_to={"d": copying()})}
    toy_formats.install(monkeypatch, shortcut)
    assert routes.find_route("a", "d", WHOLE) == ("a", "d")


def test_what_a_step_loses_is_not_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = toy("Graph", {"a": copying()}, keeps=frozenset({"weights", "graph"}))
    layers = toy("Layers", {"graph": NEEDS_LAYERS})
    toy_formats.install(monkeypatch, {"a": toy("A"), "graph": graph, "layers": layers})
    with pytest.raises(NoRoute, match="not Keras layers"):
        routes.find_route("graph", "layers", GRAPH_ONLY)
    with pytest.raises(NoRoute):
        routes.find_route("a", "layers", WHOLE)
    assert routes.find_route("graph", "layers", WHOLE) == ("graph", "layers")
    assert routes.required(("graph", "layers")) == ("keras-config",)


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ((), ()),
        ((SERVING,), ()),
        ((SERVING, Signature("serve", same_as="serving_default")), ()),  # Keras' export gives one function both names
        ((SERVING, Signature("classify")), ("all signatures but one",)),
    ],
)
def test_signatures_that_get_lost_are_said_before(signatures: tuple[Signature, ...], said: tuple[str, ...]) -> None:
    summary = dataclasses.replace(GRAPH_ONLY, signatures=signatures)
    [offer] = [offer for offer in routes.offers("saved_model", summary) if offer.format.slug == "tflite"]
    assert offer.drops == said


def offer_of(slug: str, summary: Summary) -> routes.Offer:
    return next(offer for offer in routes.offers("saved_model", summary) if offer.format.slug == slug)


def test_signatures_that_can_go_there_are_offered() -> None:
    text = Signature("text", traits=frozenset({"strings"}))
    summary = dataclasses.replace(GRAPH_ONLY, signatures=(SERVING, Signature("decode"), text))
    assert offer_of("tflite", summary).signatures == ("serving_default", "decode")
    assert offer_of("frozen_graph", summary).signatures == ("serving_default", "decode", "text")
    assert offer_of("keras", summary).signatures == ()
    assert offer_of("saved_model", summary).signatures == ()


def test_what_one_signature_alone_can_become_is_possible() -> None:
    serving = dataclasses.replace(SERVING, traits=frozenset({"strings"}))
    wordy = dataclasses.replace(
        GRAPH_ONLY, traits=GRAPH_ONLY.traits | {"strings"}, signatures=(serving, Signature("n"))
    )
    offer = offer_of("tflite", wordy)
    assert (offer.route, offer.signatures) == (("saved_model", "tflite"), ("n",))
    assert offer_of("tflite", dataclasses.replace(wordy, signatures=(serving,))).error is not None


def test_what_a_route_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    full = frozenset({"architecture", "weights", "optimizer"})
    bare = toy("Bare", {"full": copying()}, keeps=frozenset({"weights"}))
    toy_formats.install(monkeypatch, {"full": toy("Full", keeps=full), "bare": bare})
    assert routes.offers("full", WHOLE)[0].drops == ("the layers", "training mode")
    trained = dataclasses.replace(WHOLE, traits=WHOLE.traits | {"optimizer", "compiled"})
    lost = ("the layers", "training mode", "the settings of compile()", "the state of the optimizer")
    assert routes.offers("full", trained)[0].drops == lost


def test_a_fact_that_a_format_refuses_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a": toy("A"), "b": toy("B", {"a": copying()}, refuses={"strings": "it has no operation for text."})}
    toy_formats.install(monkeypatch, known)
    assert routes.find_route("a", "b", WHOLE) == ("a", "b")
    with pytest.raises(NoRoute, match=r"A cannot become B: it has no operation for text\."):
        routes.find_route("a", "b", dataclasses.replace(WHOLE, traits=WHOLE.traits | {"strings"}))


def test_facts_last_along_the_way_and_changes_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = toy("Graph", {"a": copying()}, keeps=frozenset({"weights", "graph"}))
    small = toy("Small", {"graph": copying()}, changes={"recurrent": "The batch size is fixed at 1."})
    deaf = toy("Deaf", {"graph": copying()}, refuses={"recurrent": "it has no loops."})
    toy_formats.install(monkeypatch, {"a": toy("A"), "graph": graph, "small": small, "deaf": deaf})
    recurrent = dataclasses.replace(WHOLE, traits=WHOLE.traits | {"recurrent"})
    by_slug = {offer.format.slug: offer for offer in routes.offers("a", recurrent)}
    assert by_slug["small"].changes == ("The batch size is fixed at 1.",)
    assert by_slug["deaf"].error is not None
    assert "it has no loops" in by_slug["deaf"].error.message


def test_layers_that_a_format_has_no_word_for_are_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the format is only on the way, unless there is a way around it; the source itself is none."""
    known = {"a": toy("A"), "b": toy("B", {"a": copying()}), "c": toy("C", {"b": copying()})}
    toy_formats.install(monkeypatch, known)
    strange = dataclasses.replace(WHOLE, refusals={"a": "never asked for", "b": "B has no Mixing."})
    assert routes.find_route("a", "c", dataclasses.replace(strange, refusals={"a": "x"})) == ("a", "b", "c")
    for target in ("b", "c"):
        with pytest.raises(NoRoute, match=rf"A cannot become {target.upper()}: B has no Mixing\."):
            routes.find_route("a", target, strange)
    toy_formats.install(monkeypatch, {**known, "d": toy("D", {"a": copying()}, converts_to={"c": copying()})})
    assert routes.find_route("a", "c", strange) == ("a", "d", "c")


def test_a_format_that_stumbles_over_strange_layers_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(root: Any, model: Any) -> str:
        raise KeyError("config")

    known = {"a": toy("A", refusal=stumble), "b": toy("B", refusal=lambda root, model: "no."), "c": toy("C")}
    toy_formats.install(monkeypatch, known)
    assert _outline.refusals({}, None) == {"b": "no."}


def test_refusals_are_kept_in_bounds_and_older_rows_have_none() -> None:
    refusals = {f"format-{number}": "no " * 1000 for number in range(1000)}
    kept = Summary.from_json(dataclasses.replace(WHOLE, refusals=refusals).to_json()).refusals
    assert (len(kept), {len(said) for said in kept.values()}) == (64, {500})
    assert Summary.from_json({"parameters": 3}).refusals == {}


def test_what_is_too_large_is_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a": toy("A"), "b": toy("B", {"a": copying()}, room=Room(limit=2_000_000, memory=10))}
    toy_formats.install(monkeypatch, known)
    large = dataclasses.replace(WHOLE, parameters=1_000_000)
    with pytest.raises(TooLargeForTarget, match=r"it has 4\.0 MB of weights, and 2\.0 MB is the most"):
        routes.find_route("a", "b", large)
    with pytest.raises(TooLargeForTarget, match=r"about 4\.0 MB of memory; jobs have 1\.0 MB"):
        routes.find_route("a", "b", dataclasses.replace(WHOLE, parameters=100_000), memory=1_000_000)


@pytest.mark.parametrize(
    ("target", "parameters", "words"),
    [
        ("tflite", 600_000_000, r"2\.4 GB of weights, and 2\.1 GB is the most"),
        ("frozen_graph", 600_000_000, r"2\.4 GB of weights, and 2\.1 GB is the most"),
        ("tfjs_graph", 600_000_000, r"2\.4 GB of weights, and 2\.1 GB is the most"),
        (
            "tflite",
            250_000_000,
            r"1\.0 GB of weights, and writing it takes about 10\.0 GB of memory; jobs have 8\.6 GB",
        ),
        ("coreml", 250_000_000, r"writing it takes about 28\.0 GB of memory; jobs have 8\.6 GB"),
    ],
)
def test_what_a_format_or_the_machine_cannot_hold_is_said_before(target: str, parameters: int, words: str) -> None:
    large = dataclasses.replace(WHOLE, parameters=parameters)
    [offer] = [offer for offer in routes.offers("keras", large, 8 * 2**30) if offer.format.slug == target]
    assert isinstance(offer.error, TooLargeForTarget)
    assert re.search(words, offer.error.message)
    assert routes.find_route("keras", target, WHOLE, 8 * 2**30)[-1] == target


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    far = toy("Far", {"a": copying()}, needs=("no_such_library",))
    toy_formats.install(monkeypatch, {"a": toy("A"), "far": far})
    with pytest.raises(FormatUnavailable, match="Far needs no_such_library, which is not installed here"):
        routes.find_route("a", "far", WHOLE)


def test_a_way_around_a_missing_library_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "a": toy("A"),
        "b": toy("B", {"a": copying()}, needs=("no_such_library",)),
        "c": toy("C", {"a": copying()}),
        "d": toy("D", {"c": copying()}),
        "e": toy("E", {"b": copying(), "d": copying()}),
    }
    toy_formats.install(monkeypatch, known)
    assert routes.find_route("a", "e", WHOLE) == ("a", "c", "d", "e")


def test_no_way_between_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a": toy("A"), "b": toy("B", {"a": copying()}), "c": toy("C"), "d": toy("D", {"c": copying()})}
    toy_formats.install(monkeypatch, known)
    with pytest.raises(NoRoute, match="no converter leads from the one to the other yet"):
        routes.find_route("a", "d", WHOLE)


SLUGS = [f"f{number}" for number in range(6)]
EDGES = st.sets(st.tuples(st.sampled_from(SLUGS), st.sampled_from(SLUGS), st.booleans()), max_size=14)


@given(EDGES, st.booleans())
def test_any_registry(edges: set[tuple[str, str, bool]], layers: bool) -> None:
    """Against a search that tries everything: a route is found when there is one, walks real edges, is the shortest."""
    with pytest.MonkeyPatch.context() as patch:
        toy_formats.install(patch, {slug: _with_edges(slug, edges) for slug in SLUGS})
        summary = WHOLE if layers else GRAPH_ONLY
        lengths = _distances(edges, layers)
        for target in SLUGS[1:]:
            if target in lengths:
                route = routes.find_route("f0", target, summary)
                assert len(route) - 1 == lengths[target]
                assert all(routes.converter(*step).run for step in pairwise(route))
            else:
                with pytest.raises(NoRoute):
                    routes.find_route("f0", target, summary)


def _with_edges(slug: str, edges: set[tuple[str, str, bool]]) -> Format:
    """A step that asks for layers is one edge's property; where both kinds are drawn the easy one counts."""
    sources: dict[str, Converter] = {}
    for source, target, asks in sorted(edges, key=lambda edge: not edge[2]):
        if target == slug and source != slug:
            sources[source] = NEEDS_LAYERS if asks else copying()
    return toy(slug.upper(), sources)


def _distances(edges: set[tuple[str, str, bool]], layers: bool) -> dict[str, int]:
    easy = {(source, target) for source, target, asks in edges if not asks}
    usable = {(source, target) for source, target, _ in edges if layers or (source, target) in easy}
    distances = {"f0": 0}
    for _ in SLUGS:
        for source, target in usable:
            if source in distances:
                distances[target] = min(distances.get(target, 99), distances[source] + 1)
    return distances
