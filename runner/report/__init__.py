"""The report card of a training: base against tuned, made to be read by people and kept in runs/ID."""
