"""Function shapes whose blocks must survive re-execution: `harness` runs, `serial` predicts."""
