"""Names shared by the doors of every app."""

ACTIVE_ORGANIZATION_SESSION_KEY = "active_organization_id"
