"""A page of Streamlit with nothing of ours: what `bench.pages` holds the pages against. Shown by `streamlit run`."""

import altair as alt
import pandas as pd
import streamlit as st

TABLE = pd.DataFrame({"x": range(10), "y": range(10)})

st.title("An empty page")
match st.query_params.get("with"):
    case "chart":
        st.altair_chart(alt.Chart(TABLE).mark_line().encode(x="x", y="y"))
    case "table":
        st.dataframe(TABLE)
    case "progress":
        st.progress(0.5)
