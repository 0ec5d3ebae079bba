"""Blind votes: a person's way through the pairs, and the dataset that comes of the votes."""
