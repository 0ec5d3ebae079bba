"""A run's metrics as columns, curves and sentences; what it wrote."""
