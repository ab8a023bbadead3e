"""Scenarios as files that people read: what is done to the VMs, and everything that must come of it.

``script.py`` reads the files; ``doing.py``, ``doing_cloud.py`` and ``seeing.py`` hold the sentences that may
stand in them; ``play.py`` plays one on a running stack; ``stages.py`` makes the stacks that the files want.
"""
