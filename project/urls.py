"""All URLs are the app's own."""

from django.urls import include, path

urlpatterns = [path("", include("models_app.urls"))]
handler400 = "models_app.views.errors.bad_request"
handler403 = "models_app.views.errors.forbidden"
handler404 = "models_app.views.errors.not_found"
handler500 = "models_app.views.errors.server_error"
