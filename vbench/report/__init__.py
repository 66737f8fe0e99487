"""The report: one self-contained HTML file or PDF, and the same rows for a terminal.

Everything shown comes from the bundle, and a bundle may come from a stranger: the template escapes everything,
figures draw text as outlines, and the page's content security policy forbids all requests and all scripts except its
own, by hash.
"""

from vbench.report.page import render
from vbench.report.pdf import require_pdf, write_pdf
from vbench.report.rows import LEVEL, summary_table

__all__ = ["LEVEL", "render", "require_pdf", "summary_table", "write_pdf"]
