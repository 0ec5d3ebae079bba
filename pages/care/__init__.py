"""Pages for whoever looks after the server."""
