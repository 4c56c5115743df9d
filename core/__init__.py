"""The domain of Assay: examples, scores, jobs, reflection. Knows no web page and no database."""

__version__ = "0.1.0"
