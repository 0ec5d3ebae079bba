"""What `doctor` knows about this machine."""
