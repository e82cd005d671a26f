"""A JSON column for data that comes out of other people's files."""

from __future__ import annotations

import math
from typing import Any

from django.db import models


def storable(value: Any) -> Any:
    """The value as every database can keep it: PostgreSQL refuses NUL and lone surrogates, both refuse NaN."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {storable(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


class PlainJSONField(models.JSONField):
    """JSON whose strings and numbers may be anything a model file holds."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return super().get_db_prep_value(storable(value), connection, prepared)
