"""What a model costs and what it gets right: measuring, scoring, tables, plots."""
