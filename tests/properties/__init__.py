"""The whole watchdog over random fleets, faults, crashes and races: the promises, searched for a breach."""
