"""The machine and the runner as the server's keeper needs to know them."""
