"""What the log must not say."""

from __future__ import annotations

import logging
import re

SHARE_PATH = re.compile(r"(/s/)[\w-]{20,}")


class HideTokens(logging.Filter):
    """A share link's path is its secret: whoever reads the log must not be able to use the link."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        record.msg, record.args = SHARE_PATH.sub(r"\1…", said).replace("\r", "\\r").replace("\n", "\\n"), ()
        return True
