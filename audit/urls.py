"""Pages of the record."""

from django.urls import path

from audit import views

app_name = "audit"
page_urls = [
    path("activity", views.activity, name="activity"),
    path("activity/verify", views.verify, name="verify"),
    path("activity/<uuid:event_id>", views.event, name="event"),
]
urlpatterns = page_urls
