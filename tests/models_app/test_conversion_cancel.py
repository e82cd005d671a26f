"""No longer wanting a conversion."""

from __future__ import annotations

import uuid

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.models import Conversion, ModelVersion
from tests.models_app.conftest import event_tags, request_conversion

State = Conversion.State


@pytest.fixture
def conversion(version: ModelVersion, alice: User) -> Conversion:
    return request_conversion(version, alice)


def cancel(client: Client, conversion: Conversion) -> int:
    status = client.post(f"{conversion.get_absolute_url()}cancel/").status_code
    conversion.refresh_from_db()
    return status


def test_it_works(as_bob: Client, conversion: Conversion) -> None:
    assert cancel(as_bob, conversion) == 302
    assert conversion.state == State.CANCELED
    assert conversion.finished_at is not None
    assert Conversion.objects.claim(conversion.pk) is None
    assert event_tags(conversion.team)[-1] == "conversion:canceled"


def test_running_work_is_asked_to_stop(as_bob: Client, conversion: Conversion) -> None:
    Conversion.objects.update(state=State.RUNNING, lease_token=uuid.uuid4(), lease_until=timezone.now())
    assert cancel(as_bob, conversion) == 302
    assert (conversion.state, conversion.cancel_requested) == (State.RUNNING, True)


def test_asked_for_again_while_it_is_still_being_canceled(conversion: Conversion, alice: User) -> None:
    Conversion.objects.update(
        state=State.RUNNING, lease_token=uuid.uuid4(), lease_until=timezone.now(), cancel_requested=True
    )
    assert request_conversion(conversion.version, alice) == conversion


@pytest.mark.parametrize("state", Conversion.FINAL)
def test_final_is_final(as_bob: Client, conversion: Conversion, state: State) -> None:
    Conversion.objects.update(state=state, finished_at=timezone.now(), error={"message": "no"})
    assert cancel(as_bob, conversion) == 409
    assert conversion.state == state
    assert "conversion:canceled" not in event_tags(conversion.team)
