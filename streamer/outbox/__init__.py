"""Alerts and evidence on disk: what makes an alert durable, and what makes room."""
