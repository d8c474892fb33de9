"""Instruction tuning: a DataModule with assistant-only labels and a LightningModule with LoRA."""
