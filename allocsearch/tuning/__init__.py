"""From an exported allocation to a trained, evaluated and published adapter."""
