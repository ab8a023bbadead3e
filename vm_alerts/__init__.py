"""Alerts: what to say (pure) and how each channel wants to hear it. Used by both sides."""
