"""Simulated Linux VMs: real processes, and a real systemd where the machine allows it."""
