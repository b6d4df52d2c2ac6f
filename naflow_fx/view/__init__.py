"""What shows and saves results: colours, sheets, figures, films, notebooks, pages.

A flow is data and knows nothing of this package; its methods that draw hand it over.
"""
