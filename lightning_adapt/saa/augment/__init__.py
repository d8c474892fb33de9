"""Augmentation of whole uint8 batches on their device: the RandAugment pool of FixMatch, Cutout, flip and crop."""
