"""Pages for looking on: what runs, what waits, how a job is doing."""
