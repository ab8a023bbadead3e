"""Pure: no I/O, no waiting, nothing patched."""
