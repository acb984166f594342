"""A repository on the Hugging Face Hub: its files, its card, publishing it and holding it to the truth."""
