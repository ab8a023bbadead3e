"""Three tiers: unit (no I/O), component (one part against the real thing), e2e (all of it)."""
