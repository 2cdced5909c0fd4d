"""Further metrics, which a suite or a task names: modules with a METRIC, all of them in the folder `metrics` of a study."""
