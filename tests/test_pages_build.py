"""The pages that build something: uploads become datasets, forms become job specs."""

import io
import zipfile
from typing import Any

from streamlit.testing.v1 import AppTest
from test_pages_app import World, said, visit, world  # noqa: F401

from spool.data.keeping import keep

CSV = b"question,answer\nWhere is it?,In the box.\nHow long?,\n"


def test_an_upload_is_kept_and_judged(world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].upload("FAQ (new).csv", CSV)
    app.run()
    assert not app.exception
    assert [each.name for each in keep.list_datasets(world.home)] == ["FAQ-new"]
    assert {m.label: m.value for m in app.metric} == {"Rows": "2", "Usable": "1", "Repeated": "0", "Longest row": "–"}
    assert "Columns: question, answer" in said(app).replace("\\", "").replace("\u2060", "")
    assert app.dataframe[0].value["line"].tolist() == [3]
    button(app, "Train on this").click().run()
    assert app.query_params["data"] == "FAQ-new"
    assert '"dataset": "FAQ-new"' in app.code[0].value


def test_an_upload_that_is_no_data_is_refused_in_words(world: World) -> None:  # noqa: F811
    app = visit("data")
    workbook = io.BytesIO()
    with zipfile.ZipFile(workbook, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    app.file_uploader[0].upload("Mappe1.xlsx", workbook.getvalue())
    app.run()
    assert "Excel workbook" in app.error[0].value
    assert keep.list_datasets(world.home) == []
    assert not any(world.home.datasets.iterdir()), "nothing is left behind"


def test_an_unrecognised_layout_is_asked_for_beside_its_rows(world: World) -> None:  # noqa: F811
    app = visit("data")
    app.file_uploader[0].upload("odd.csv", b"alpha,beta,gamma\n1,2,3\n4,5,6\n")
    app.run()
    assert not app.error
    assert "Which column is the question" in app.warning[0].value, "it is asked, and no fault"
    assert app.dataframe[-1].value["beta"].tolist() == ["2", "5"]


def button(app: AppTest, label: str) -> Any:
    return next(each for each in app.button if each.label == label)
