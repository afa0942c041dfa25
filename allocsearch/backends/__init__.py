"""The engines: Optuna's studies and Ray's workers. Nothing outside this folder imports either."""
