"""Every address of Larder, in one list."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from models_app.views import (
    catalog,
    conversions,
    history,
    pages,
    quarantine,
    samples,
    sharing,
    status,
    teams,
    uploads,
    variants,
)

urlpatterns = [
    path("", catalog.home, name="home"),
    path("login/", pages.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("healthz", pages.healthz, name="healthz"),
    path("status/", status.status, name="status"),
    path("status/check/", status.check, name="status-check"),
    path("why-not-pickle/", pages.why_not_pickle, name="why-not-pickle"),
    path("t/<slug:team>/", catalog.team, name="team"),
    path("t/<slug:team>/upload/", uploads.upload, name="upload"),
    path("t/<slug:team>/uploads/", uploads.upload_raw, name="upload-raw"),
    path("t/<slug:team>/uploads/finish/", uploads.upload_finish, name="upload-finish"),
    path("t/<slug:team>/members/", teams.members, name="members"),
    path("t/<slug:team>/members/add/", teams.member_add, name="member-add"),
    path("t/<slug:team>/members/<int:pk>/role/", teams.member_role, name="member-role"),
    path("t/<slug:team>/members/<int:pk>/remove/", teams.member_remove, name="member-remove"),
    path("t/<slug:team>/shares/", sharing.shares, name="shares"),
    path("t/<slug:team>/history/", history.history, name="history"),
    path("t/<slug:team>/history.csv", history.history_csv, name="history-csv"),
    path("t/<slug:team>/m/<slug:model>/", catalog.model, name="model"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/", catalog.version, name="version"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/convert/", conversions.convert, name="convert"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/samples/", samples.give, name="samples"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/samples/remove/", samples.remove, name="samples-remove"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/variants.json", variants.table, name="variants"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/variants/make/", variants.make, name="variants-make"),
    path("t/<slug:team>/m/<slug:model>/v<int:number>/variants/measure/", variants.measure, name="variants-measure"),
    path("conversions/<uuid:pk>/", conversions.conversion, name="conversion"),
    path("conversions/<uuid:pk>/cancel/", conversions.cancel, name="conversion-cancel"),
    path("conversions/<uuid:pk>/report.json", conversions.report, name="conversion-report"),
    path("files/<int:pk>/share/", sharing.share_create, name="share-create"),
    path("files/<int:pk>/quarantine/", quarantine.stays, name="quarantine"),
    path("files/<int:pk>/quarantine/release/", quarantine.release, name="quarantine-release"),
    path("files/<int:pk>/quarantine/again/", quarantine.again, name="quarantine-again"),
    path("files/<int:pk>/<str:name>", catalog.download, name="download"),
    path("shares/<int:pk>/revoke/", sharing.share_revoke, name="share-revoke"),
    path("s/<str:token>/", sharing.public_share, name="public-share"),
    path("s/<str:token>/<str:name>", sharing.public_download, name="public-download"),
]
