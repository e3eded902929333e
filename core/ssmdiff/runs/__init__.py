"""Configurations, and runs on disk."""
