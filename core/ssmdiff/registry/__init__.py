"""Finds plugins and builds components by name."""
