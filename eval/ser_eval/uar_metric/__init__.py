"""UAR as a metric of the `evaluate` library: `evaluate.load(<this folder>)`, offline."""
