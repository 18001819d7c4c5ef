"""Tables: what they consist of, how they are built and rendered, and the paper's own numbers."""
