"""Agent, function app and local Azure together, looked at from outside."""
