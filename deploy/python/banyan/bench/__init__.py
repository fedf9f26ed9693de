"""banyan bench serve | offline: load on a server, and what came of it.

    workloads.py ─ requests ─▶ load.py ─ HTTP, at a rate or so many at a time ─▶ figures.py ─▶ table, JSON, plot.py

Read in this order: workloads.py, load.py, figures.py, __main__.py.
"""
