"""Pieces of Models that draw with Streamlit."""
