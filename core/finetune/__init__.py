"""QLoRA finetunes on mixtures: settings, texts, training, evaluation and what a run gives."""
