"""The daemon, and the child process that it starts for each job (the only place that imports unsloth)."""
