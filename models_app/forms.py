"""Clean input. Forms read, they never write."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.db.models import QuerySet

from models_app.models import AuditEvent, RegisteredModel, Role, Tag, Team
from models_app.models.quarantine import REASON_LENGTH, REASON_LETTERS
from worker.visible import is_hidden

LASTS = {
    "1h": ("1 hour", timedelta(hours=1)),
    "1d": ("1 day", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
    "90d": ("90 days", timedelta(days=90)),
}
LASTS_DEFAULT = "7d"
NOT_PEOPLE = {"larder": "Larder itself", "a share link": "Share links"}


def _plain(typed: str) -> str:
    """One line of what can be seen."""
    spaced = "".join(" " if char.isspace() else char for char in typed)
    return " ".join("".join(char for char in spaced if not is_hidden(char)).split())


class NoFiles(FileUploadHandler):
    """Takes no files: pages that expect none must not fill the disk with what is sent to them."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None


class FilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class FilesField(forms.FileField):
    """One file or several that belong together."""

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile[Any]]:
        files = data if isinstance(data, list) else [data]
        return [super(FilesField, self).clean(file, initial) for file in files or [None]]


class UploadForm(forms.Form):
    """``model`` wins over ``name``; with neither, the new model is called like the file."""

    files = FilesField(widget=FilesInput, allow_empty_file=True)  # type: ignore[assignment]  # a field, not Form.files
    model = forms.ModelChoiceField(
        RegisteredModel.objects.none(), to_field_name="slug", required=False, empty_label="A new model"
    )
    name = forms.CharField(max_length=100, required=False)

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].queryset = team.models.order_by("name")  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        return _plain(self.cleaned_data["name"])


class SamplesForm(forms.Form):
    """One file with samples, or several pictures."""

    files = FilesField(widget=FilesInput, allow_empty_file=True)  # type: ignore[assignment]  # a field, not Form.files


class FinishForm(UploadForm):
    """The same for files that were sent before, one by one."""

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(team, *args, **kwargs)
        del self.fields["files"]


class ConsentForm(forms.Form):
    """The sentence on the page, ticked."""

    agreed = forms.BooleanField()


class PolicyForm(forms.Form):
    """Whether members may agree to run code: a choice of two, for a box that is not ticked sends nothing."""

    custom_code = forms.ChoiceField(choices=[("no", "Not allowed"), ("yes", "Allowed with consent")])


class MemberForm(forms.Form):
    who = forms.CharField(max_length=254, label="User name or e-mail")
    role = forms.ChoiceField(choices=Role.choices, initial=Role.VIEWER)


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)


class ShareForm(forms.Form):
    lasts = forms.ChoiceField(choices=[(value, label) for value, (label, _) in LASTS.items()])

    @property
    def duration(self) -> timedelta:
        return LASTS[self.cleaned_data["lasts"]][1]


class ReasonForm(forms.Form):
    """Why a person overrides a check. It is shown for ever, so that what cannot be seen in it is taken out."""

    reason = forms.CharField(max_length=REASON_LENGTH, widget=forms.Textarea({"rows": 4}))

    def clean_reason(self) -> str:
        typed = self.cleaned_data["reason"]
        reason = _plain(typed)
        if sum(char.isalpha() for char in reason) < REASON_LETTERS:
            raise forms.ValidationError(f"Say it in a few words: at least {REASON_LETTERS} letters.")
        return reason


class HistoryForm(forms.Form):
    """Filters of the history. Nonsense in the URL filters nothing and is shown at its field."""

    person = forms.ChoiceField(required=False)
    action = forms.ChoiceField(choices=[("", "Anything"), *Tag.choices], required=False)
    since = forms.DateTimeField(required=False, widget=forms.DateTimeInput({"type": "datetime-local"}))
    until = forms.DateTimeField(required=False, widget=forms.DateTimeInput({"type": "datetime-local"}))

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        people = User.objects.filter(pk__in=team.history.values("actor")).order_by("username")
        named = [(str(person.pk), person.username) for person in people]
        self.fields["person"].choices = [("", "Anybody"), *named, *NOT_PEOPLE.items()]  # type: ignore[attr-defined]

    def filter(self, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        self.is_valid()
        found = self.cleaned_data
        if person := found.get("person"):
            events = (
                events.filter(actor=None, actor_name=person) if person in NOT_PEOPLE else events.filter(actor=person)
            )
        if action := found.get("action"):
            events = events.filter(tag=action)
        if since := found.get("since"):
            events = events.filter(at__gte=since)
        if until := found.get("until"):
            events = events.filter(at__lt=until)
        return events
