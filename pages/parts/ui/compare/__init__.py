"""Pieces of Compare that draw with Streamlit."""
