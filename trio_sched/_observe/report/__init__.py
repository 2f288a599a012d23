"""`report.html`: one run on one page that needs nothing but itself. Figures, their collection, and the page."""
