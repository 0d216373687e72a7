"""Reading side, last room: summary -> figures -> one offline page, LaTeX tables, paper figures.

`write_report` writes everything, `dose_response_figure` draws one figure in a notebook.
"""

from clipdrift.report.figures.dose import dose_response_figure
from clipdrift.report.write import write_report

__all__ = ["dose_response_figure", "write_report"]
