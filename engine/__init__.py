"""What several programs do alike, composed of feeder and models: set-up, frozen features, classifiers, stopping on signals.

Programs import the engine; nothing below does. Plain values come in; only `evaluation.Evaluation`, which is what the beginnings and
ends of the evaluation programs share, takes their arguments."""
