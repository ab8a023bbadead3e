"""The cloud side: looks at the fleet from outside, decides, restarts, alerts."""
