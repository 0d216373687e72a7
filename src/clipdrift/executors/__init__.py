"""Where runs are executed. Executors know keys and processes, nothing of models or studies."""
