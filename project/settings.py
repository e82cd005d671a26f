"""Django's settings: one file, from the environment only. docs/settings.md lists every variable."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from project import env

BASE_DIR = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024

# Where Larder keeps everything it writes
LARDER_DATA = env.path("LARDER_DATA", BASE_DIR / "data", "The folder for everything that Larder writes.")
STORE_ROOT = LARDER_DATA / "store"
STAGING_ROOT = LARDER_DATA / "staging"
JOBS_ROOT = LARDER_DATA / "jobs"


def _own_secret() -> str:
    """A random key, made once and kept in the data folder, so that the one-command start needs no set-up."""
    file = LARDER_DATA / "secret-key"
    try:
        if not file.exists():
            _keep(file, secrets.token_urlsafe(64))
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise ImproperlyConfigured(
            f"The data folder {LARDER_DATA} cannot be written: {error.strerror}. Set LARDER_DATA to a folder that can."
        ) from None


def _keep(file: Path, text: str) -> None:
    """Write the whole file or none of it, readable by this user only; of two writers at once the first one wins."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}-{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="ascii")
    with contextlib.suppress(FileExistsError):
        os.link(draft, file)
    draft.unlink()


def _database(url: str) -> dict[str, Any]:
    """SQLite by default; postgres://user:password@host:port/name, or postgres:///name?host=/socket/folder."""
    if not url:
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": LARDER_DATA / "larder.sqlite3",
            # IMMEDIATE, or concurrent writers meet "database is locked" (facts: 632 of 900 writes).
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    if not url.startswith(("postgres://", "postgresql://")):
        raise ImproperlyConfigured(f"DATABASE_URL is {url!r}: expected postgres://user:password@host:port/name.")
    return {"ENGINE": "django.db.backends.postgresql", **_postgres(url)}


def _postgres(url: str) -> dict[str, Any]:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(url)
    named = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {key: parts.pop(part, "") for key, part in named.items()} | {"OPTIONS": parts}


# Django
DEBUG = env.boolean("LARDER_DEBUG", False, "1 shows Django's error pages; never on a machine that others reach.")
SECRET_KEY = (
    env.secret("LARDER_SECRET_KEY", "", "Signs sessions; made and kept in LARDER_DATA when empty.") or _own_secret()
)
LARDER_BIND = env.text("LARDER_BIND", "127.0.0.1:8000", "Address and port that the pages are served on.")
ALLOWED_HOSTS = env.words(
    "LARDER_HOSTS",
    ["127.0.0.1", "localhost", "[::1]", LARDER_BIND.rsplit(":", 1)[0]],
    "Host names people use to reach the pages, comma-separated.",
)
CSRF_TRUSTED_ORIGINS = env.words("LARDER_ORIGINS", [], "Origins such as https://larder.example.org behind a proxy.")
LARDER_DEMO = env.boolean(
    "LARDER_DEMO",
    False,
    "1 shows the demo account on the sign-in page; `manage.py larder` sets it. Given 0, it makes no such account.",
)
DEMO_FILE = LARDER_DATA / "demo-login.json"
HTTPS = env.boolean("LARDER_HTTPS", False, "1 where the pages are served over HTTPS: secure cookies, HSTS, redirect.")
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
LANGUAGE_CODE = "en"
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": _database(env.secret("DATABASE_URL", "", "postgres://… ; empty means SQLite in LARDER_DATA."))}

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "csp",
    "django_htmx",
    "models_app",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "models_app.views.hidden.ShowHidden",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "models_app.views.errors.ErrorPages",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "models_app.views.pages.frame",
            ],
        },
    }
]
CSRF_FAILURE_VIEW = "models_app.views.errors.csrf_failure"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "UserAttributeSimilarityValidator")
]

# What pages may load: only our own files
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "font-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
STATIC_URL = "/static/"
STATIC_ROOT = LARDER_DATA / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # asked by machines on the inside
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# Uploads
MAX_UPLOAD_BYTES = env.integer("LARDER_MAX_UPLOAD_MB", 4096, "The largest file that may be uploaded, in MiB.") * MIB
MAX_SAMPLES_BYTES = MIB * env.integer(
    "LARDER_MAX_SAMPLES_MB", 512, "The most that one version's samples may take, in MiB."
)
# Only the upload page and the form for samples take files, after a look at the length; elsewhere they go unread.
FILE_UPLOAD_HANDLERS = ["models_app.forms.NoFiles"]
FILE_UPLOAD_TEMP_DIR = STAGING_ROOT
DATA_UPLOAD_MAX_NUMBER_FILES = 256  # in one form: as many pictures as a model is run on, one for each row

# Celery: messages are wake-up hints, the database is the truth, so acknowledge early and keep no results
REDIS_URL = env.secret("REDIS_URL", "", "The broker, redis://… ; `manage.py larder` starts one when empty.")
CELERY_BROKER_URL = REDIS_URL or f"redis+socket://{LARDER_DATA}/run/redis.sock?virtual_host=0"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# Publishing while the broker is away answers at once (0.03 s instead of 2–5 s); the reconciler sends again.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
    "interval_max": 0.2,
    "socket_connect_timeout": 2,
}
CELERY_BEAT_SCHEDULE = {
    "reconcile": {"task": "worker.reconcile", "schedule": 15.0, "options": {"expires": 15}},
}
CELERY_BEAT_SCHEDULE_FILENAME = str(LARDER_DATA / "run" / "beat")
LEASE_SECONDS = env.integer("LARDER_LEASE_SECONDS", 60, "How long a silent worker keeps a conversion.")
MAX_ATTEMPTS = 3

# What one job may use
JOB_MEMORY_BYTES = env.integer("LARDER_JOB_MEMORY_MB", 8192, "Memory that one job may use, in MiB.") * MIB
JOB_DISK_BYTES = env.integer("LARDER_JOB_DISK_MB", 16384, "Disk that one job may fill, in MiB.") * MIB
JOB_WALL_SECONDS = env.integer("LARDER_JOB_SECONDS", 900, "How long one job may run.")

# The walls around jobs
SANDBOX_USER = env.integer(
    "LARDER_SANDBOX_USER", 64123, "Whose user id jobs have where Larder runs as root; 0 for root's."
)
SANDBOX_INSIDE = env.words(
    "LARDER_SANDBOX_INSIDE", [], "A command, its words comma-separated, that the process of all jobs is started with."
)
SANDBOX_CGROUP = env.text(
    "LARDER_SANDBOX_CGROUP", "", "The folder of the cgroup below which each job gets its own; - for none."
)
WEAK_SANDBOX = env.boolean(
    "LARDER_WEAK_SANDBOX", False, "1 runs jobs where the machine cannot contain them; every page says so."
)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"class": "project.logs.Lines", "format": "{asctime} {levelname} {name} {message}", "style": "{"}
    },
    "filters": {"secrets": {"()": "project.logs.HideTokens"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["secrets"]}},
    "root": {"handlers": ["stderr"], "level": env.text("LARDER_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR.")},
}
