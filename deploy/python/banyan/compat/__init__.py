"""Other engines' names for what Banyan does."""
