"""One part each, against the real thing it talks to."""
