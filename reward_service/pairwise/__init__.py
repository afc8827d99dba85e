"""A judge that is shown two edits at a time, as PVC-Judge is (arXiv 2603.28547), and what becomes of its choices."""
