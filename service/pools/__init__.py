"""Pools of unlabelled rows, too many for the memory: read, scored and chosen from in parts."""
