"""Jobs in their order, what is expected of them, and what has happened since."""
