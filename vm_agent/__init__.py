"""The agent on a VM: it looks, judges, answers ``/health``, reports, and can restart one allowed unit.

It never imports the cloud side and never decides a restart by itself.
"""
