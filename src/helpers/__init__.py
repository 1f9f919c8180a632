"""Helpers of the companion to "Mapping Overlaps in Benchmarks through Perplexity in the Wild".

One topic per module; a module imports only those below it in the list of ``CONTRIBUTING.md``.
"""

__version__ = "0.1.0"
