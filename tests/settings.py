"""The project's own settings, on a throw-away data folder."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_data = tempfile.mkdtemp(prefix="larder-test-")
atexit.register(shutil.rmtree, _data, ignore_errors=True)
os.environ["LARDER_DATA"] = _data  # read by the line below, and before any conftest.py

from project.settings import *  # noqa: E402, F403
from project.settings import DATABASES, LARDER_DATA, STATIC_ROOT, STORAGES  # noqa: E402

# A file, as in production: SQLite in memory locks tables where WAL lets readers and a writer be.
DATABASES["default"]["TEST"] = (
    {"NAME": str(LARDER_DATA / "test.sqlite3")} if "sqlite3" in DATABASES["default"]["ENGINE"] else {}
)
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # Argon2 is slow on purpose

# Pages are tested without a collectstatic before; the browser tests have the real one.
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
STATIC_ROOT.mkdir(parents=True)
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # nothing is collected
