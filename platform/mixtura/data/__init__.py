"""Data as a plan: sources are read by index, a plan says which sample goes where, a loader carries it out."""
