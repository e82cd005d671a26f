"""What the code declares is documented: settings, errors, findings, history tags, formats, scripts, commands."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from django.conf import settings  # noqa: F401 - loads the settings, which declare themselves
from django.core.management import get_commands

import worker
from models_app.models import Tag
from project import env
from worker import errors, formats, report
from worker.sandbox.layers import BEFORE_FORK, FILE_LAYERS, FLOOR, IN_JOB
from worker.sandbox.namespaces import TOLD
from worker.sandbox.selfcheck import ACTS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file())


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def row_of(setting: env.Setting) -> str:
    """A setting's line in docs/settings.md. ``LARDER_DATA`` here is the tests' own."""
    defaults = {"LARDER_DATA": "./data", "LARDER_HOSTS": "127.0.0.1, localhost, [::1] and the one in LARDER_BIND"}
    plain = {"": "–", "[]": "–", "False": "0", "True": "1"}.get(setting.default, setting.default)
    default = defaults.get(setting.name, plain)
    return f"| `{setting.name}` | {default} | {setting.help} |"


def test_every_setting_is_documented_with_its_default() -> None:
    table = read("settings.md")
    assert [row for row in map(row_of, env.SETTINGS) if row not in table] == []


def test_documented_settings_exist() -> None:
    """In the settings, or in the scripts, which read a few before there is a Python."""
    scripts = "".join((ROOT / "scripts" / name).read_text(encoding="utf-8") for name in SCRIPTS)
    known = {setting.name for setting in env.SETTINGS} | set(re.findall(r"LARDER_\w+", scripts))
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", read("settings.md"), re.MULTILINE))
    assert documented == known


@pytest.mark.parametrize("error", list(errors.classes()), ids=lambda error: error.code)
def test_every_error_is_documented(error: type[errors.LarderError]) -> None:
    assert re.search(rf"^\| `{error.code}` \| {error.http_status} \|", read("errors.md"), re.MULTILINE)


def test_error_codes_are_unique() -> None:
    codes = [error.code for error in errors.classes()]
    assert len(codes) == len(set(codes))


def test_documented_errors_exist() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \| \d{3} \|", read("errors.md"), re.MULTILINE)
    assert set(documented) == {error.code for error in errors.classes()}


def test_every_finding_is_documented() -> None:
    for module in pkgutil.walk_packages(worker.__path__, "worker."):  # findings are declared where they are made
        importlib.import_module(module.name)
    assert report.KINDS
    assert [code for code in report.KINDS if f"`{code}`" not in read("findings.md")] == []


def test_every_history_tag_is_documented() -> None:
    assert [tag for tag in Tag.values if f"`{tag}`" not in read("history.md")] == []


@pytest.mark.parametrize("slug", formats.formats())
def test_every_format_has_a_page(slug: str) -> None:
    heading = read(f"formats/{slug}.md").splitlines()[0]
    assert heading == f"# {formats.get(slug).label} (`{slug}`)"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_mentioned_and_says_what_it_does(script: str) -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]
    assert any(f"scripts/{script}" in path.read_text(encoding="utf-8") for path in texts)
    assert (ROOT / "scripts" / script).read_text(encoding="utf-8").splitlines()[1].startswith("# ")


def test_every_command_is_documented() -> None:
    ours = [name for name, app in get_commands().items() if app == "models_app"]
    texts = (ROOT / "README.md").read_text(encoding="utf-8") + "".join(map(read, ("operations.md", "command-line.md")))
    assert ours
    assert [name for name in ours if f"manage.py {name}" not in texts] == []


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")], ids=lambda document: document.name
)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_layer_and_every_probe_is_in_the_promise() -> None:
    security, sandbox = read("security.md"), read("sandbox.md")
    layers = {*FLOOR, *FILE_LAYERS, *TOLD, *IN_JOB, *BEFORE_FORK, "cgroup"}
    assert [name for name in layers if f"| `{name}`" not in sandbox] == []
    assert [name for name in ACTS if f"| {name} |" not in security] == []
    probes = re.findall(r"^\| ([^|]+) \| (?:private_root|processes|seccomp|rlimits|supervisor)", security, re.MULTILINE)
    assert set(probes) == set(ACTS)
