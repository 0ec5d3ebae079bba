"""Several runs beside each other: who came out best, and what differs."""
