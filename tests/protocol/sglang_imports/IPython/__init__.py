"""Stands where SGLang's client imports IPython; in a terminal it calls nothing of it."""
