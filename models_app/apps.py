"""The one Django app of Larder."""

from contextlib import suppress

from django.apps import AppConfig


class ModelsAppConfig(AppConfig):
    name = "models_app"
    verbose_name = "Larder"

    def ready(self) -> None:
        from models_app import checks, storage

        checks.register_all()
        with suppress(OSError):  # the check larder.E001 says it in a sentence
            storage.prepare()
