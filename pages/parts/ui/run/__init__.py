"""Pieces of one run, on Monitor that draw with Streamlit."""
