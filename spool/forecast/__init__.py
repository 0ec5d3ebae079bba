"""What a job will take in time, memory and disk, learned from this server's own finished jobs."""
