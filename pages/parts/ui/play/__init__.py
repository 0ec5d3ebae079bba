"""Pieces of the Playground that draw with Streamlit."""
