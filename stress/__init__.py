"""Real threads against the runtime, each workload with an invariant: `python -m stress`."""
