"""Pieces of the Data page that draw with Streamlit."""
