"""What several programs share, built on feeder and models: setup, frozen features, classifiers, stopping on signals.

Only programs import the engine. Its functions take plain values; `evaluation.Evaluation` and `training_run.TrainingRun`, the common
start and end of programs, are the exceptions and take the parsed arguments."""
