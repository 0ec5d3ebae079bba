"""Pages for making something: data to learn from, and a job."""
