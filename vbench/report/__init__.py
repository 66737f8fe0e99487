"""The report: one self-contained HTML file or a PDF, and the same rows for a terminal.

Everything shown comes from the bundle, and a bundle may come from a stranger: the template escapes all of it,
figures draw text as outlines, and the page's policy allows no request and no script but its own, by its hash.
"""

from vbench.report.page import render
from vbench.report.pdf import require_pdf, write_pdf
from vbench.report.rows import LEVEL, summary_table

__all__ = ["LEVEL", "render", "require_pdf", "summary_table", "write_pdf"]
