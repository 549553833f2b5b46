"""Grids of runs: from axes to trials, their names and their order. Nothing here runs anything."""
