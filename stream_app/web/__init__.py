"""A worker's own web server: health, readiness, metrics and, in the feeds role, the live page."""
