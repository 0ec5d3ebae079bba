"""Draws the page Vote."""
