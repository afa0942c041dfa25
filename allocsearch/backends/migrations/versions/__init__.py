"""One file per change of the tables. Each may be run again after it was cut short."""
