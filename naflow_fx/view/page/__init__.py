"""Pages that show flows in a browser: one file each, with everything they need inside.

`record.py` writes what is shown as JSON, `page.py` puts it into a page, `web/` is the page's own
source (TypeScript), `bundle/` what `npm run build` makes of it.
"""

from naflow_fx.view.page.page import save_report
from naflow_fx.view.page.record import ReportEntry

__all__ = ["ReportEntry", "save_report"]
