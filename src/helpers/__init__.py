"""Helpers of the companion to "Mapping Overlaps in Benchmarks through Perplexity in the Wild".

One topic per module; a module imports only those below it in the list of ``CONTRIBUTING.md``.
"""

import warnings

# Libraries ask tqdm for a bar that needs ipywidgets; without them Jupyter shows every reader this line in red.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
