"""Datasets: reading, recognising, judging, rendering and keeping them."""
