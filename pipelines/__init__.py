"""Recipes that read like the method section of a paper: the order of the stages, no logic."""
