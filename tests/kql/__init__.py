"""The two gates in front of every ``.kql`` file: Microsoft's parser, and execution on sample rows."""
