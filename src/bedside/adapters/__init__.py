"""Outside systems behind the ports of core: DVC moves bytes, MLflow mirrors runs, the environment is written down."""
