"""The log keeps no secret of a path and stays one line per message."""

from __future__ import annotations

import logging

from project.logs import HideTokens


def shown(message: str, *arguments: object) -> str:
    record = logging.LogRecord("larder", logging.WARNING, __file__, 1, message, arguments, None)
    assert HideTokens().filter(record)
    return record.getMessage()


def test_it_works() -> None:
    assert shown("Not Found: %s", "/s/" + "aB3-_" * 8 + "/model.keras") == "Not Found: /s/…/model.keras"


def test_other_paths_stay() -> None:
    assert shown("%s of 100%% in /static/s/x", "50%") == "50% of 100% in /static/s/x"


def test_a_path_cannot_begin_a_line_of_its_own() -> None:
    assert shown("Not Found: %s", "/a\nERROR forged") == "Not Found: /a\\nERROR forged"
