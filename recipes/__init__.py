"""The theatre command and everything behind it: recipes, data, tokenizers, training, evaluation, publishing."""
