"""Measurements, side by side in one run. Results worth keeping lie under bench/results/."""
