"""Reading side, last room: summary -> figures -> one offline page, LaTeX tables, paper figures.

`write_report` writes everything, `audit_report` computes it again from the records and names what
differs, `dose_response_figure` draws one figure in a notebook.
"""

from clipdrift.report.figures.dose import dose_response_figure
from clipdrift.report.recomputed import Difference, audit_report
from clipdrift.report.write import write_report

__all__ = ["Difference", "audit_report", "dose_response_figure", "write_report"]
